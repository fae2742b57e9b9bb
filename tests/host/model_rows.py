"""The rows of kinds of models: SDXL, inpainting, edit, refiners, and noise schedules down to pure
noise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from family import HOST
from materials import INVERSION
from requests_table import FILLER, KINDS, MASK, SAMPLERS, SMALL, START, Row
from sampler_rows import HIRES, STATIC, both, still

FRESH = {"targets": "cat", "mask_timing": "fresh"}


def rows() -> Iterator[Row]:
    yield from _zero_terminal_snr()
    yield from _sdxl()
    yield from _inpainting()
    yield from _edit()
    yield from _refiners()
    yield from _switches()


_ALSO_STILL = [("sd1-v", "DDIM"), ("sd1-v", "UniPC"), ("sdxl", "Euler a"), ("sdxl", "DPM++ 2M")]


def _zero_terminal_snr() -> Iterator[Row]:
    options = {"sd_noise_schedule": "Zero Terminal SNR"}
    few = (*KINDS, "DPM++ SDE", "UniPC")
    for checkpoint, samplers in {"sd1-v": SAMPLERS, "sd2-v": few, "sdxl": few}.items():
        for sampler in samplers:
            request = {"sampler_name": sampler, "steps": 12 if sampler == "DPM fast" else 6, **SMALL}
            row = Row(f"zero terminal SNR, {checkpoint} {sampler}", request, options=options, checkpoint=checkpoint)
            yield from both(row) if (checkpoint, sampler) in _ALSO_STILL else (row,)


def _sdxl() -> Iterator[Row]:
    def row(name: str, settings: Any = None, options: dict[str, Any] | None = None, **request: Any) -> Row:
        return Row(f"sdxl, {name}", {**SMALL, **request}, settings, options or {}, checkpoint="sdxl")

    yield from both(row("target in chunk 2", prompt=f"{FILLER}, a cat on a wall"))
    yield row("negative over 75 tokens", negative_prompt=FILLER, batch_size=2)
    yield row("pad_cond_uncond", None, {"pad_cond_uncond": True}, negative_prompt=FILLER)
    yield row("empty negative", negative_prompt="")
    yield from both(row("AND, batch size 2", prompt="a cat AND a dog:0.6", batch_size=2))
    yield row("batch_cond_uncond off", None, {"batch_cond_uncond": False}, batch_size=2)
    yield row("batch size 2, count 2, fresh", FRESH, batch_size=2, n_iter=2, sampler_name="Euler a")
    yield row("BREAK", prompt="a dog BREAK a cat")
    yield row("editing", prompt="a [dog:cat:0.3] in the sun")
    yield row("emphasis", prompt="a (cat:1.3) and a ((dog))")
    yield row("textual inversion", {"targets": INVERSION}, prompt=f"a painting of {INVERSION} and a cat")
    yield row("word behind a textual inversion", prompt=f"a painting of {INVERSION} and a cat")
    yield row("clip skip 2", None, {"CLIP_stop_at_last_layers": 2})
    yield row("crop", None, {"sdxl_crop_left": 64, "sdxl_crop_top": 32})
    yield row("CFG 1", cfg_scale=1)
    yield row("static", STATIC, sampler_name="UniPC")
    yield row("whole picture", {"whole_picture": True})
    yield from both(row("hires fix, DDIM", **{**HIRES, "sampler_name": "DDIM", "steps": 8}))
    yield row("hires fix, AND in its prompt", **HIRES, hr_prompt="a dog AND a cat")
    yield row("520x328", width=520, height=328, steps=4)
    start = {**START, "denoising_strength": 0.7}
    yield replace(row("img2img, DPM++ 2M SDE", **start, sampler_name="DPM++ 2M SDE"), kind="img2img")
    yield replace(row("inpainting", **{**start, **MASK, "width": 96, "height": 96}), kind="img2img")


def _inpainting() -> Iterator[Row]:
    for checkpoint in ("sd1-inpainting", "sdxl-inpainting"):
        start = {**START, "denoising_strength": 0.8}
        for name, request in {
            "img2img": start,
            "inpainting": {**start, **MASK, "inpainting_fill": 1},
            "inpainting, only masked": {**start, **MASK, "inpaint_full_res": True, "inpaint_full_res_padding": 8},
            "inpainting, fill 3, batch size 2": {**start, **MASK, "inpainting_fill": 3, "batch_size": 2},
        }.items():
            made = {**request, "sampler_name": "UniPC" if "fill" in name else "Euler a"}
            yield from both(Row(f"{checkpoint}, {name}", made, kind="img2img", checkpoint=checkpoint))
        hires = {**HIRES, "hr_upscaler": "Lanczos"}  # the host itself fails with a latent one
        yield from both(Row(f"{checkpoint}, hires fix", hires, checkpoint=checkpoint))
        yield Row(f"{checkpoint}, AND", {"prompt": "a cat AND a dog:0.6", **SMALL}, checkpoint=checkpoint)


def _edit() -> Iterator[Row]:
    for scale in (None, 1.5):
        for sampler in ("Euler a", "DPM++ 2M", "DDIM"):
            request = {**START, "denoising_strength": 0.9, "image_cfg_scale": scale, "sampler_name": sampler}
            row = Row(f"sd1-edit, scale {scale}, {sampler}", request, kind="img2img", checkpoint="sd1-edit")
            yield from both(row)
    request = {**START, "denoising_strength": 0.9, "image_cfg_scale": 1.5, "batch_size": 2}
    yield Row("sd1-edit, batch size 2", request, kind="img2img", checkpoint="sd1-edit")
    yield Row("sd1-edit, static", request, STATIC, kind="img2img", checkpoint="sd1-edit")
    yield Row("sd1-edit, inpainting", {**request, **MASK}, kind="img2img", checkpoint="sd1-edit")
    request = {**START, "denoising_strength": 0.9, "image_cfg_scale": 1.0, "prompt": "a cat AND a dog"}
    yield Row("sd1-edit, scale 1, AND", request, kind="img2img", checkpoint="sd1-edit")


ALIKE = ("sd1", "sd1-other.ckpt" if HOST.forge else "sd1.ckpt")
"""Two checkpoints of the same configuration. A1111 loads the one's weights into the other's
model."""
REFINERS = (
    ALIKE,
    ("sd1", "sd1-v"),
    ("sd1-v", "sd1"),
    ("sd2-v", "sd1"),
    ("sdxl", "sdxl-refiner"),
)


def _refiner(pair: tuple[str, str], name: str, settings: Any = None, options: Any = None, **request: Any) -> Row:
    checkpoint, refiner = pair
    names = {"refiner_checkpoint": f"tiny-{refiner}", "refiner_switch_at": 0.5}
    request = {**SMALL, "steps": 8, **names, **request}
    # With two of them kept there is less to load. That of the same configuration is loaded in place
    # with one.
    options = {"sd_checkpoints_limit": 1 if pair == ALIKE else 2, **(options or {})}
    return Row(f"{checkpoint} to {refiner}, {name}", request, settings, options, checkpoint=checkpoint)


def _refiners() -> Iterator[Row]:
    for pair in REFINERS:
        for sampler in ("Euler", "DDIM", "UniPC"):
            yield from both(_refiner(pair, sampler, sampler_name=sampler))
        yield _refiner(pair, "static", STATIC)
        yield _refiner(pair, "fresh", FRESH, sampler_name="Euler a")
        yield _refiner(pair, "whole picture", {"whole_picture": True})
        yield _refiner(pair, "batch size 2, count 2", batch_size=2, n_iter=2)
        other = {"sd_checkpoints_limit": 2 if pair == ALIKE else 1}
        yield _refiner(pair, "another number of checkpoints kept", None, other)
        hires = {**HIRES, "sampler_name": "DPM++ 2M"}
        yield from both(_refiner(pair, "hires fix", None, {"hires_fix_refiner_pass": "both passes"}, **hires))


def _switches() -> Iterator[Row]:
    """The rows of when a refiner takes over, and of what else the request has."""

    def row(name: str, settings: Any = None, options: dict[str, Any] | None = None, **request: Any) -> Row:
        return _refiner(("sd1", "sd1-v"), name, settings, options, **request)

    for which in ("first pass", "second pass"):
        yield row(f"hires fix, {which}", None, {"hires_fix_refiner_pass": which}, **HIRES)
    yield still(row("one checkpoint kept, static", STATIC, {"sd_checkpoints_limit": 1}, sampler_name="Euler a"))
    for sampler in ("Euler", "DDIM", "Heun", "PLMS"):
        by_steps = {"refiner_switch_by_sample_steps": True}
        yield from both(row(f"by steps, {sampler}", None, by_steps, sampler_name=sampler))
    yield row("AND, batch size 2", prompt="a cat AND a dog:0.6", batch_size=2)
    yield row("editing", {"targets": "cat, dog"}, prompt="a [cat:dog:0.7] in the sun", sampler_name="Heun")
    yield row("target in chunk 2", prompt=f"{FILLER}, a cat", batch_size=2)
    yield row("from the first step on", refiner_switch_at=0.0)
    yield row("never", refiner_switch_at=1.0)
    start = {**START, "denoising_strength": 0.8}
    yield replace(row("img2img", **start, sampler_name="DDIM"), kind="img2img")
    yield replace(row("inpainting", **start, **MASK), kind="img2img")
