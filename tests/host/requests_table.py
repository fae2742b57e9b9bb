"""The rows of the host suite: one picture request each, with the settings of AsynDM."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from family import HOST
from materials import HYPERNETWORK, INVERSION, LORA
from PIL import Image, ImageDraw

SCRIPT = "asyndm"
DEFAULTS = {
    "targets": "",
    "concavity": 0.5,
    "curve": "quadratic",
    "mask_timing": "lagged",
    "threshold": 1.0,
    "whole_picture": False,
    "second_pass": "same",
    "second_concavity": 0.5,
    "show_masks": False,
    "normalisation": "as the model",
    "region": "words",
    "with_words": "union",
    "mask": "",
}
"""The script's arguments after ``enabled``, in the order that saved API requests rely on."""

CURVES = ("quadratic", "piecewise linear", "exponential")
TIMINGS = ("lagged", "fresh", "static")
CHECKPOINTS = ("sd1", "sd1-v", "sd2-v", "sdxl", "sd1-inpainting", "sdxl-inpainting")
SAMPLERS, SCHEDULES = HOST.samplers, HOST.schedules
KINDS = ("Euler", "Euler a", "DPM++ 2M", "DDIM")
"""Kinds of samplers: what does not depend on the sampler is tried on these."""

PROMPT = "a cat and a dog with a red heart"
SMALL = {"width": 64, "height": 64}
SOFT_INPAINTING = {"alwayson_scripts": {"soft inpainting": {"args": [True, 1.0, 0.5, 4.0, 0.0, 0.5, 2.0]}}}
FILLER = ", ".join(["very detailed colorful painting of a quiet summer garden"] * 9)
"""A prompt of more than 75 tokens."""


TOO_FEW = {"unchanged": True, "messages": ("none in which regions could differ",)}
"""What :class:`Row` expects where the picture has too few steps; its infotext says so."""
NO_STEP = {"unchanged": True, "messages": ("There is no step to make",)}
"""What it expects where there is not one."""

ENOUGH = 8
"""The steps of a row with a start picture: DDIM makes fewer than its strength leaves."""


@dataclass(frozen=True)
class Row:
    """One picture request.

    ``request``: what differs from :data:`BASE`.
    ``settings``: what differs from :data:`DEFAULTS`; None for the target "cat" alone.
    ``options``: of the host.
    ``unchanged``: whether the settings cannot change this picture.
    ``rounding``: whether they cannot change it by more than rounding.
    ``without``: whether it is made without AsynDM.
    ``messages``: parts of the messages expected, in order.
    ``referenced``: whether the host keeps its start picture, encoded with random numbers, together
    with the prompt.
    """

    name: str
    request: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    kind: str = "txt2img"
    checkpoint: str = "sd1"
    unchanged: bool = False
    rounding: bool = False
    without: bool = False
    messages: tuple[str, ...] = ()
    referenced: bool = False

    @property
    def history(self) -> bool:
        """Whether the host's own answer depends on the job before.

        Its VAE encoder draws from PyTorch's global random numbers, whose state the job before
        leaves. Its infotext names the kind of emphasis only where the prompt's encoding was not yet
        in its cache.
        """
        return self.kind == "img2img" or "emphasis" in self.options

    @property
    def off(self) -> dict[str, Any]:
        request = {**BASE, **self.request}
        # Loaded by the options.
        overrides = {**self.options, "sd_model_checkpoint": f"tiny-{self.checkpoint}"}
        return {**request, "override_settings": overrides}

    @property
    def on(self) -> dict[str, Any]:
        return switched_on(self.off, self.settings)

    @property
    def pictures(self) -> int:
        """The least number of pictures that it must make."""
        if "script_name" in self.request:
            return 1
        request = {**BASE, **self.request}
        return request.get("batch_size", 1) * request.get("n_iter", 1)

    @property
    def size(self) -> tuple[int, int] | None:
        """The size of its pictures; None where a script or the start picture decides."""
        if "script_name" in self.request or self.request.get("inpaint_full_res"):
            return None
        request = {**BASE, **self.request}
        if "hr_resize_x" in request:
            return HOST.size(request["hr_resize_x"], request["hr_resize_y"])
        scale = request.get("hr_scale", 1) if request.get("enable_hr") else 1
        width, height = HOST.size(request["width"], request["height"])
        return int(width * scale), int(height * scale)


BASE = {
    "prompt": PROMPT,
    "negative_prompt": "ugly",
    "width": 96,
    "height": 96,
    "steps": 6,
    "seed": 1,
    "cfg_scale": 5,
    "sampler_name": "Euler",
    "scheduler": "automatic",
}


def arguments(settings: dict[str, Any] | None) -> list[Any]:
    """The script's arguments, switched on."""
    return [True, *{**DEFAULTS, **({"targets": "cat"} if settings is None else settings)}.values()]


def with_arguments(request: dict[str, Any], args: list[Any]) -> dict[str, Any]:
    others = request.get("alwayson_scripts", {})
    return {**request, "alwayson_scripts": {**others, SCRIPT: {"args": args}}}


def switched_on(request: dict[str, Any], settings: dict[str, Any] | None = None) -> dict[str, Any]:
    return with_arguments(request, arguments(settings))


def plot(axes: list[Any], request: dict[str, Any], **values: str) -> dict[str, Any]:
    """``request`` as an X/Y/Z plot that answers with its pictures too.

    ``axes`` are the host's labels. ``x``, ``y`` and ``z`` are a label and its text: ``x=("Seed",
    "1, 2")``.
    """
    given = [values.get(name, ("Nothing", "")) for name in "xyz"]
    args = [entry for label, text in given for entry in (axes.index(label), text, [])]
    args += [False, True, False, True, False, False, False, *HOST.plot_numbers, True]
    return {**request, "script_name": "x/y/z plot", "script_args": args}


def rows() -> Iterator[Row]:
    yield from _settings()
    yield from _without_lag()
    yield from _shapes()
    yield from _prompts()
    yield from _options()
    yield from _passes()
    yield from _start_pictures()
    yield from _masks()
    yield from _second_passes()
    yield from _networks()
    yield from _scripts()


def _settings() -> Iterator[Row]:
    for curve in CURVES:
        for timing in TIMINGS:
            settings = {"targets": "cat", "curve": curve, "mask_timing": timing, "concavity": 1.0}
            yield Row(f"{curve}, {timing}", settings=settings)
        yield Row(f"{curve}, whole picture", settings={"curve": curve, "whole_picture": True})
        yield Row(
            f"{curve}, DPM++ 2M, k = 1",
            {"sampler_name": "DPM++ 2M"},
            {"targets": "cat", "curve": curve, "concavity": 1.0},
        )
    for timing in TIMINGS:
        settings = {"targets": "cat", "mask_timing": timing, "normalisation": "by level"}
        yield Row(f"normalisation by level, {timing}", settings=settings)
    hires = {"enable_hr": True, "hr_scale": 1.5, "hr_upscaler": "Latent", "denoising_strength": 0.7}
    two = {"targets": "cat", "normalisation": "by level"}
    yield Row("normalisation by level, hires fix, batch", {**hires, "batch_size": 2}, two)
    yield Row("normalisation by level, DPM++ SDE", {"sampler_name": "DPM++ SDE"}, two)
    yield Row("normalisation by level, k = 0", settings={**two, "concavity": 0.0}, unchanged=True)
    yield Row("threshold 0: everything", settings={"targets": "cat", "threshold": 0.0})
    yield Row("threshold 4: nothing", settings={"targets": "cat", "threshold": 4.0})
    yield Row("own concavities", settings={"targets": "cat:0.2, dog:0.9, red heart"})
    yield Row("one target missing", settings={"targets": "cat, horse"}, messages=('"horse" not found',))


def _without_lag() -> Iterator[Row]:
    """The rows with concavity 0, which make the host's own picture, bit for bit: its formulas,
    scalars and random numbers."""
    still = {"targets": "cat", "concavity": 0.0}
    static = {**still, "mask_timing": "static"}  # the first pass leaves no trace in the second one
    eta = {"sampler_name": "DDIM", "eta": 1.0}
    yield Row("still, static, Euler a", {"sampler_name": "Euler a"}, static, unchanged=True)
    yield Row("still, static, DDIM eta 1", eta, static, unchanged=True)
    yield Row("still, static, NV", {"sampler_name": "Euler a"}, static, {"randn_source": "NV"}, unchanged=True)
    yield Row("still, static, editing", {"prompt": "a [cat:dog:0.5]"}, static, unchanged=True)
    yield Row("still, batch", {"batch_size": 2, "n_iter": 2, "sampler_name": "Euler a"}, static, unchanged=True)
    hires = {"enable_hr": True, "hr_scale": 2, "hr_upscaler": "Latent", "denoising_strength": 0.7, **SMALL}
    yield Row("still, hires fix", {**hires, "sampler_name": "DPM++ 2M"}, still, unchanged=True)
    start = {"init_images": [_START], **MASK, "denoising_strength": 0.8, "steps": ENOUGH}
    yield Row("still, inpainting, DDIM", {**start, **eta}, still, kind="img2img", unchanged=True)
    yield Row("still, inpainting, Euler a", {**start, "sampler_name": "Euler a"}, still, kind="img2img", unchanged=True)


def _shapes() -> Iterator[Row]:
    for width, height in ((520, 328), (64, 64), (200, 456), (72, 1032), (400, 392)):
        steps = 4 if width * height > 10000 else 6
        yield Row(f"{width}x{height}", {"width": width, "height": height, "steps": steps})
    yield Row("batch size 3", {"batch_size": 3})
    yield Row("batch count 2", {"n_iter": 2})
    yield Row("batch size 2, count 2, Euler a", {"batch_size": 2, "n_iter": 2, "sampler_name": "Euler a"})
    yield Row(
        "batch size 2, DDIM eta 1, fresh",
        {"batch_size": 2, "sampler_name": "DDIM", "eta": 1.0},
        {"targets": "cat", "mask_timing": "fresh"},
    )
    yield Row("subseed", {"subseed": 7, "subseed_strength": 0.3, "sampler_name": "Euler a"})
    yield Row("seed resize", {"seed_resize_from_w": 64, "seed_resize_from_h": 96})
    yield Row("tiling", {"tiling": True})


def _prompts() -> Iterator[Row]:
    def prompt(name: str, text: str, targets: str = "cat", **more: Any) -> Row:
        return Row(
            name, {"prompt": text, **more.pop("request", {})}, {"targets": targets, **more.pop("settings", {})}, **more
        )

    yield Row("CFG 1", {"cfg_scale": 1})
    yield Row("CFG 1, empty negative", {"cfg_scale": 1, "negative_prompt": ""})
    yield Row("negative over 75 tokens", {"negative_prompt": FILLER})
    yield Row("negative over 75 tokens, batch size 2", {"negative_prompt": FILLER, "batch_size": 2})
    long = f"{FILLER}, a cat on a wall"
    yield prompt("target in chunk 2", long)
    yield prompt("target in chunk 2, both long", long, request={"negative_prompt": FILLER})
    yield prompt("BREAK", "a dog BREAK a cat")
    yield prompt("AND", "a cat AND a dog")
    yield prompt("AND weighted", "a cat AND a dog:0.6", "cat, dog:0.9")
    yield prompt("AND, target in the second part", "a dog AND a cat:0.6")
    yield prompt("AND, batch size 2", "a cat AND a dog:0.6", request={"batch_size": 2})
    yield prompt("AND, one part long", f"a cat AND {FILLER}")
    yield prompt("AND, DDIM", "a cat AND a dog:0.6", request={"sampler_name": "DDIM"})
    yield prompt("AND, target in both parts", "a cat AND a cat in a hat")
    yield prompt("editing, second word", "a [cat:dog:0.5] in the sun", "dog", request={"steps": 10})
    yield prompt("editing, first word", "a [cat:dog:0.5] in the sun", "cat")
    yield prompt("editing by step", "a [cat:dog:2] in the sun", "dog", request={"steps": 10})
    yield prompt("editing that adds", "a house [with a cat:0.3]")
    yield prompt("editing that takes away", "a house [with a cat::0.5]", settings={"mask_timing": "fresh"})
    yield prompt("editing, static", "a [cat:dog:0.5]", "cat, dog", settings={"mask_timing": "static"})
    yield prompt("editing changes the length", f"a cat [in {FILLER}::0.5]")
    yield prompt("alternation", "a [cat|dog] in the sun")
    yield prompt("alternation, both", "a [cat|dog] in the sun", "cat, dog", settings={"mask_timing": "fresh"})
    yield prompt("emphasis", "a (cat:1.3) and a ((dog)) and a [bird]", "cat, dog, bird")
    yield prompt("emphasis in the targets", "a (cat:1.3) and a ((dog))", "(cat:1.3), ((dog)):0.9")
    yield prompt("emphasis, escaped brackets", r"a cat \(animal\)", "cat")
    yield prompt("second occurrence", "a dog and a dog and a cat", "dog#2")
    yield prompt("word of several tokens", "a hippogriffosaurus and a cat", "hippogriffosaurus")
    yield prompt("several words", "a big red heart and a cat", "big red heart")
    yield prompt("other letters", "ein Käse-Brötchen und 猫 🙂", "Käse-Brötchen, 猫, 🙂")
    yield prompt("capitals", "A CAT and a Dog", "cat, DOG")
    yield prompt("line break in the prompt", "a dog\nand a cat")
    yield prompt("line break in the targets", "a dog and a cat", "cat\ndog")
    yield prompt("textual inversion", f"a painting of {INVERSION} and a cat", INVERSION)
    yield prompt("word behind a textual inversion", f"a painting of {INVERSION} and a cat")
    yield prompt("textual inversion in chunk 2", f"{FILLER}, {INVERSION}", INVERSION)


def _options() -> Iterator[Row]:
    def option(name: str, options: dict[str, Any], **request: Any) -> Row:
        return Row(f"option {name}", request, options=options)

    yield option("batch_cond_uncond off", {"batch_cond_uncond": False})
    yield Row(
        "option batch_cond_uncond off, AND, batch size 2",
        {"prompt": "a cat AND a dog:0.6", "batch_size": 2},
        options={"batch_cond_uncond": False},
    )
    yield option("pad_cond_uncond", {"pad_cond_uncond": True}, negative_prompt=FILLER)
    yield option("pad_cond_uncond_v0, long negative", {"pad_cond_uncond_v0": True}, negative_prompt=FILLER)
    yield option("pad_cond_uncond_v0, long prompt", {"pad_cond_uncond_v0": True}, prompt=f"{FILLER}, a cat")
    yield option("always_discard_next_to_last_sigma", {"always_discard_next_to_last_sigma": True})
    yield option(
        "always_discard_next_to_last_sigma, DDIM", {"always_discard_next_to_last_sigma": True}, sampler_name="DDIM"
    )
    yield option("sgm_noise_multiplier", {"sgm_noise_multiplier": True})
    yield option("s_min_uncond", {"s_min_uncond": 4.0}, s_min_uncond=4.0)
    yield option(
        "s_min_uncond_all, DPM++ 2M",
        {"s_min_uncond": 4.0, "s_min_uncond_all": True},
        s_min_uncond=4.0,
        sampler_name="DPM++ 2M",
    )
    yield option("skip_early_cond", {"skip_early_cond": 0.4})
    yield option("skip_early_cond, AND", {"skip_early_cond": 0.4}, prompt="a dog AND a cat:0.6")
    yield option("skip_early_cond, long negative", {"skip_early_cond": 0.4}, negative_prompt=FILLER, batch_size=2)
    ngms = {"s_min_uncond": 4.0, "prompt": "a cat AND a dog:0.6", "batch_size": 2}
    yield option("s_min_uncond, AND, batch size 2", {"s_min_uncond": 4.0}, **ngms)
    yield option("clip skip 2", {"CLIP_stop_at_last_layers": 2})
    yield option("eta_noise_seed_delta", {"eta_noise_seed_delta": 31337}, sampler_name="Euler a")
    yield option("randn_source NV", {"randn_source": "NV"}, sampler_name="Euler a")
    yield Row(
        "option randn_source NV, static",
        {"sampler_name": "Euler a"},
        {"targets": "cat", "mask_timing": "static"},
        options={"randn_source": "NV"},
    )
    yield Row("static, Euler a", {"sampler_name": "Euler a"}, {"targets": "cat", "mask_timing": "static"})
    yield Row("static, DDIM eta 1", {"sampler_name": "DDIM", "eta": 1.0}, {"targets": "cat", "mask_timing": "static"})
    yield option("use_old_karras_scheduler_sigmas", {"use_old_karras_scheduler_sigmas": True}, scheduler="karras")
    yield option("sigma_min, sigma_max, rho", {"sigma_min": 0.1, "sigma_max": 20.0, "rho": 5.0}, scheduler="karras")
    yield option("sigma_max beyond the model", {"sigma_min": 0.001, "sigma_max": 80.0}, scheduler="karras")
    yield option("emphasis None", {"emphasis": "None"})
    yield option("emphasis No norm", {"emphasis": "No norm"}, prompt="a (cat:1.3)")
    yield option("comma_padding_backtrack", {"comma_padding_backtrack": 40}, prompt=f"{FILLER}, a cat on a wall")
    yield option("use_old_scheduling", {"use_old_scheduling": True}, prompt="a [dog:cat:0.5]", steps=10)
    yield option("hypertile", {"hypertile_enable_unet": True}, width=256, height=256, steps=4)
    yield option("token merging", {"token_merging_ratio": 0.5}, width=256, height=256, steps=4)
    # Forge's model then keeps logarithms of its sigmas that are a rounding off, until another is
    # loaded.
    yield replace(option("zero terminal SNR", {"sd_noise_schedule": "Zero Terminal SNR"}), checkpoint="sd1-v")
    yield option("downcast alphas", {"use_downcasted_alpha_bar": True}, sampler_name="DDIM")


def _passes() -> Iterator[Row]:
    hires = {"enable_hr": True, "hr_scale": 2, "hr_upscaler": "Latent", "denoising_strength": 0.7, "steps": 5, **SMALL}
    request = {**START, "denoising_strength": 0.6, "steps": 8, "n_iter": 2, "batch_size": 2}
    yield Row("img2img batches", request, kind="img2img")
    yield Row("img2img strength 0", {**START, "denoising_strength": 0.0}, kind="img2img", **TOO_FEW)
    mask = {**START, **MASK, "denoising_strength": 0.9, "steps": 8}
    for fill in range(4):
        yield Row(f"inpainting, fill {fill}", {**mask, "inpainting_fill": fill}, kind="img2img")
    yield Row("inpainting, DDIM", {**mask, "inpainting_fill": 1, "sampler_name": "DDIM"}, kind="img2img")
    yield Row("inpainting, only masked", {**mask, "inpainting_fill": 1, "inpaint_full_res": True}, kind="img2img")
    yield Row(
        "inpainting, static",
        {**mask, "inpainting_fill": 1},
        {"targets": "cat", "mask_timing": "static"},
        kind="img2img",
    )
    other = {**hires, "sampler_name": "Euler a", "hr_sampler_name": "DPM++ 2M", "hr_second_pass_steps": 6}
    yield Row("hires fix, another sampler", {**other, "hr_scheduler": "Karras"})
    yield Row("hires fix, another prompt", {**other, "prompt": "a cat", "hr_prompt": "a dog with a cat"})
    yield Row("hires fix, batch size 2, count 2", {**hires, "batch_size": 2, "n_iter": 2, "steps": 5})


def _start_pictures() -> Iterator[Row]:
    def row(name: str, options: dict[str, Any] | None = None, settings: Any = None, **request: Any) -> Row:
        start = {"init_images": [_START], "denoising_strength": 0.7, "steps": ENOUGH, **SMALL}
        return Row(f"img2img {name}", {**start, **request}, settings, options or {}, kind="img2img")

    for sampler in KINDS:
        # At so low a strength it takes many steps to make some, and a schedule whose last ones
        # still show.
        low = {"denoising_strength": 0.05, "steps": 120, "scheduler": "normal"}
        yield row(f"{sampler}, strength 0.05", sampler_name=sampler, **low)
    for sampler, comes in (("Euler", TOO_FEW), ("DDIM", NO_STEP)):
        nothing = row(f"{sampler}, strength 0.05, nothing to do", sampler_name=sampler, denoising_strength=0.05)
        yield replace(nothing, **comes)
    yield row("strength 0.3", denoising_strength=0.3, steps=20)
    yield row("as many steps as said", {"img2img_fix_steps": True}, denoising_strength=0.4)
    yield row("static, Euler a", None, {"targets": "cat", "mask_timing": "static"}, sampler_name="Euler a")
    yield row("fresh, DDIM eta 1", None, {"targets": "cat", "mask_timing": "fresh"}, sampler_name="DDIM", eta=1.0)
    yield row("AND, batch size 2", prompt="a cat AND a dog:0.6", batch_size=2)
    yield row("two start pictures", init_images=[_START, in_base64(drawing().rotate(90))], batch_size=2)
    yield row("noise multiplier", initial_noise_multiplier=0.8)
    for sampler in ("Euler", "DDIM"):
        yield row(f"extra noise, {sampler}", {"img2img_extra_noise": 0.2}, sampler_name=sampler)
    yield row("color correction", {"img2img_color_correction": True})
    for mode in (1, 2, 3):
        yield row(f"resize mode {mode}", resize_mode=mode, width=96, height=64)
    yield row("token merging", {"token_merging_ratio_img2img": 0.5}, width=128, height=128)
    yield row("skip_early_cond, DPM++ 2M", {"skip_early_cond": 0.4}, sampler_name="DPM++ 2M")
    yield row("CFG 1, DDIM", sampler_name="DDIM", cfg_scale=1)
    yield row("TAESD", {"sd_vae_encode_method": "TAESD", "sd_vae_decode_method": "TAESD"})


def _masks() -> Iterator[Row]:
    def row(name: str, options: dict[str, Any] | None = None, settings: Any = None, **request: Any) -> Row:
        start = {"init_images": [_START], "denoising_strength": 0.8, "steps": ENOUGH, **MASK}
        start |= {"inpainting_fill": 1, "mask_blur": 4}
        return Row(f"inpainting, {name}", {**start, **request}, settings, options or {}, kind="img2img")

    inverted, part = {"inpainting_mask_invert": 1}, {"inpaint_full_res": True, "inpaint_full_res_padding": 8}
    yield row("inverted mask", **inverted)
    yield row("no blur", mask_blur=0)
    yield row("unrounded mask", mask_round=False)
    yield row("only masked, padding 0", **part | {"inpaint_full_res_padding": 0})
    yield row("only masked, padding, DDIM", sampler_name="DDIM", **part)
    yield row("only masked, inverted", **part, **inverted)
    yield row("only masked, other size", **part, width=128, height=64)
    yield row("only masked, nothing masked", **part, mask=in_base64(Image.new("L", (96, 96))))
    for fill in (0, 2, 3):
        yield row(f"fill {fill}, DDIM eta 1", sampler_name="DDIM", eta=1.0, inpainting_fill=fill)
        yield row(f"fill {fill}, only masked", inpainting_fill=fill, **part)
    yield row("DPM++ 2M", sampler_name="DPM++ 2M")
    yield row("Euler a, static", None, {"targets": "cat", "mask_timing": "static"}, sampler_name="Euler a")
    yield row("batch size 2, count 2", batch_size=2, n_iter=2)
    yield row("strength 1", denoising_strength=1.0)
    yield row("extra noise", {"img2img_extra_noise": 0.2})
    soft = {**SOFT_INPAINTING, "mask_blur": 8}
    still = {"targets": "cat", "concavity": 0.0}
    # Forge Classic's schedules stand in its samplers' names.
    for sampler in (*KINDS, *(name for name in SAMPLERS if name.endswith(" Exponential"))):
        yield row(f"soft, {sampler}", sampler_name=sampler, **soft)
        yield replace(row(f"soft, still, {sampler}", None, still, sampler_name=sampler, **soft), unchanged=True)
    yield row("soft, only masked", **soft, **part)
    yield row("soft, whole picture", None, {"whole_picture": True}, **soft)


def _second_passes() -> Iterator[Row]:
    def row(name: str, options: dict[str, Any] | None = None, settings: Any = None, **request: Any) -> Row:
        hires = {"enable_hr": True, "hr_scale": 2, "hr_upscaler": "Latent", "denoising_strength": 0.7, **SMALL}
        return Row(f"hires fix, {name}", {**hires, **request}, settings, options or {})

    for upscaler in ("Latent (bicubic antialiased)", "Latent (nearest-exact)", "None", "Lanczos"):
        yield row(upscaler, hr_upscaler=upscaler)
    yield row("steps, low strength", hr_second_pass_steps=10, denoising_strength=0.3)
    yield row("cropped", hr_resize_x=120, hr_resize_y=88)
    yield row("static, DDIM eta 1", None, {"targets": "cat", "mask_timing": "static"}, sampler_name="DDIM", eta=1.0)
    yield row("fresh, whole picture", None, {"whole_picture": True})
    yield row("another sampler, DDIM", sampler_name="Euler a", hr_sampler_name="DDIM")
    yield row("another checkpoint", hr_checkpoint_name="tiny-sd1-v")
    yield row("AND in its prompt only", hr_prompt="a dog AND a cat:0.6")
    yield row("its negative prompt", hr_negative_prompt=FILLER)
    first, second = "a dog", "a cat"
    yield replace(row("target in its prompt only", prompt=first, hr_prompt=second), messages=("picture was made",))
    yield replace(
        row("target not in its prompt", prompt=second, hr_prompt=first), messages=("second pass was made without",)
    )
    yield row("extra noise", {"img2img_extra_noise": 0.2})
    yield row("token merging", {"token_merging_ratio_hr": 0.5})
    yield row("NGMS", {"s_min_uncond": 4.0}, s_min_uncond=4.0, hr_second_pass_steps=8)
    yield row("skip_early_cond, DDIM", {"skip_early_cond": 0.4}, sampler_name="DDIM")
    yield row("CFG 1", cfg_scale=1)
    yield row("clip skip 2", {"CLIP_stop_at_last_layers": 2})
    yield row("LoRA in its prompt only", hr_prompt=f"{PROMPT}<lora:{LORA}:1>")


def _networks() -> Iterator[Row]:
    def row(name: str, networks: str, options: dict[str, Any] | None = None, settings: Any = None, **more: Any) -> Row:
        return Row(name, {"prompt": f"{PROMPT} {networks}", **SMALL, **more}, settings, options or {})

    lora, hypernetwork = f"<lora:{LORA}:1>", f"<hypernet:{HYPERNETWORK}:1>"
    for sampler in KINDS:
        yield row(f"LoRA, {sampler}", lora, sampler_name=sampler)
    yield replace(row("still, LoRA", lora, None, {"targets": "cat", "concavity": 0.0}), unchanged=True)
    yield row("LoRA, static, Euler a", lora, None, {"targets": "cat", "mask_timing": "static"}, sampler_name="Euler a")
    yield row("LoRA, text encoder only", f"<lora:{LORA}:te=0.8:unet=0>")
    yield row("LoRA, UNet only", f"<lora:{LORA}:0:0.8>")
    yield row("LoRA within the words", "", prompt=f"a dog <lora:{LORA}:0.5>and a cat")
    yield row("LoRA, functional", lora, {"lora_functional": True})
    yield row("LoRA of the options", "", {"sd_lora": LORA})
    yield row("LoRA, batches", lora, batch_size=2, n_iter=2)
    yield row("LoRA, AND", "", prompt=f"a cat AND a dog:0.6 {lora}")
    yield row("hypernetwork", hypernetwork)
    yield row("hypernetwork, half", f"<hypernet:{HYPERNETWORK}:0.5>", sampler_name="DDIM")
    yield row("hypernetwork, static", hypernetwork, None, {"targets": "cat", "mask_timing": "static"})
    yield row("hypernetwork of the options", "", {"sd_hypernetwork": HYPERNETWORK})
    yield row("LoRA, hypernetwork, textual inversion", f"{lora}{hypernetwork} by {INVERSION}")
    start = {"init_images": [_START], "denoising_strength": 0.7}
    yield replace(row("img2img LoRA, hypernetwork", f"{lora}{hypernetwork}", **start), kind="img2img")
    yield Row("clip skip 2, sd2-v", SMALL, options={"CLIP_stop_at_last_layers": 2}, checkpoint="sd2-v")


def _scripts() -> Iterator[Row]:
    """The rows of the host's scripts that make several pictures, or one in several parts."""

    def row(name: str, args: list[Any], kind: str, **request: Any) -> Row:
        start = {"init_images": [_START], "denoising_strength": 0.7, "steps": ENOUGH} if kind == "img2img" else {}
        script = {"script_name": name.split(",")[0], "script_args": args}
        return Row(f"script {name}", {**SMALL, **start, **script, **request}, kind=kind)

    matrix = {"prompt": "a cat|in a hat|in the sun", "batch_size": 3}
    yield row("prompt matrix", [False, True, "positive", "comma", 0], "txt2img", **matrix)
    lines = f'in the sun\n--prompt "a cat" --steps 5 --sampler_name DDIM --n_iter 2\nby night <lora:{LORA}:1>'
    yield row("prompts from file or textbox", [True, False, "end", lines], "txt2img")
    # The kinds of axes are numbered; then: no legend, single pictures too, …, values as text.
    steps, samplers = (HOST.axes["Steps"], "5, 6", []), (HOST.axes["Sampler"], "Euler a, DDIM", [])
    checkpoints, none = (HOST.axes["Checkpoint name"], "tiny-sd1, tiny-sd1-v", []), (0, "", [])
    flags = [False, True, False, False, False, False, False, *HOST.plot_numbers, True]
    yield row("x/y/z plot", [*steps, *samplers, *none, *flags], "txt2img")
    yield row("x/y/z plot, checkpoints", [*checkpoints, *none, *none, *flags], "txt2img")
    yield row("loopback", [3, 0.4, "Aggressive", "None"], "img2img")
    yield row("loopback, DDIM, count 2", [2, 0.8, "Linear", "None"], "img2img", sampler_name="DDIM", n_iter=2)
    yield row("loopback, inpainting", [2, 0.8, "Lazy", "None"], "img2img", width=96, height=96, **MASK)
    # Four tiles in batches of three: the second one is smaller.
    yield row("sd upscale", [None, 16, "Lanczos", 1.1], "img2img", batch_size=3)
    yield row("outpainting mk2", [None, 32, 2, ["left", "down"], 1.0, 0.05], "img2img", width=128, height=128)
    yield row("poor man's outpainting", [32, 2, 1, ["left", "right"]], "img2img", width=128, height=128)


def drawing() -> Image.Image:
    """A start picture with large and small forms."""
    rows, columns = np.mgrid[0:96, 0:96]
    background = np.stack([rows * 2, columns * 2, 255 - 2 * rows], axis=-1).clip(0, 255).astype(np.uint8)
    picture = Image.fromarray(background)
    ImageDraw.Draw(picture).ellipse((20, 25, 70, 75), fill=(220, 60, 40))
    return picture


def masked_area() -> Image.Image:
    mask = Image.new("L", (96, 96))
    ImageDraw.Draw(mask).rectangle((24, 24, 80, 80), fill=255)
    return mask


def in_base64(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


_START = in_base64(drawing())
START = {"init_images": [_START]}
MASK = {"mask": in_base64(masked_area()), "inpaint_full_res": False}
"""The mask of the whole picture. The API's own default is the masked part alone."""
PAINTED = {"region": "painted", "mask": MASK["mask"]}
"""Settings of a mask by hand."""
