"""The rows of the transformers: every family in every kind of job."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from family import A1111, FORGE, HOST, NEO
from requests_table import FILLER, MASK, PAINTED, SOFT_INPAINTING, START, Row
from sampler_rows import STEPS, both


@dataclass(frozen=True)
class Transformer:
    """One kind of checkpoint; see ``tests/tiny_transformers``.

    ``words``: where the words of :data:`WORDS` stand, as ``/asyndm/v1/tokens`` says it.
    ``lost``: whether the WebUI reads nothing behind ``BREAK``.
    ``sampled``: whether it is tried with every sampler and schedule. ``further``: whether it is
    tried in the :data:`FURTHER` jobs. ``stored``: whether it is there as :data:`OTHERWISE_STORED`,
    too. ``options``: the WebUI's.
    ``lacks``: jobs by their names, and why the WebUI itself cannot do them.
    """

    name: str
    words: tuple[list[int], ...]
    sampled: bool = False
    further: bool = False
    lost: bool = False
    stored: bool = False
    options: tuple[tuple[str, Any], ...] = ()
    lacks: tuple[tuple[str, str], ...] = ()

    def lacking(self, job: str) -> str | None:
        """Why ``job`` cannot be asked of it."""
        return dict(self.lacks).get(job)


WORDS = ("cat", "dog", "basketball")
"""Words of :data:`PROMPT`."""
PROMPT = "a red cat, a (dog:1.2) and a basketball"
_T5S = ([3], [7], [11])
_CLIPS = ([3], [6], [9])
_EVEN = ("odd size", "Forge itself fails on Stable Diffusion 3 with an odd number of latent pixels")
_ALONE = "Forge Neo makes one picture of Wan at a time"
_SINGLE = (("batch 2, count 2", _ALONE), ("AND", _ALONE))
_SIXTEENTHS = ("odd size", "A1111 itself cuts the sizes of Stable Diffusion 3 to 16 pixels")
TRANSFORMERS: dict[str, tuple[Transformer, ...]] = {
    A1111.name: (
        Transformer("sd3", _CLIPS, sampled=True, further=True, lacks=(_SIXTEENTHS,)),
        Transformer("sd3-t5", _CLIPS, further=True, options=(("sd3_enable_t5", True),), lacks=(_SIXTEENTHS,)),
    ),
    FORGE.name: (
        Transformer("sd3", _CLIPS, sampled=True, further=True, lacks=(_EVEN,)),
        Transformer("sd3-t5", _CLIPS, further=True, options=(("sd3_enable_t5", True),), lacks=(_EVEN,)),
        Transformer("sd35-medium", _CLIPS, lacks=(_EVEN,)),
        Transformer("sd35-large", _CLIPS, lacks=(_EVEN,)),
        Transformer("flux-dev", _T5S, sampled=True, further=True, lost=True, stored=True),
        Transformer("flux-schnell", _T5S, lost=True),
        Transformer("chroma", _T5S, further=True, lost=True, stored=True),
    ),
    NEO.name: (
        Transformer("flux-dev", _T5S, sampled=True, further=True, lost=True, stored=True),
        Transformer("flux-schnell", _T5S, lost=True),
        Transformer("klein", ([5], [21], [36])),
        Transformer("chroma", _T5S, further=True, lost=True, stored=True),
        Transformer("lumina", ([33], [37], [40]), lost=True),
        Transformer("z-image", ([5], [17], [28]), sampled=True, further=True, stored=True),
        Transformer("qwen", ([2], [45], [87]), sampled=True, further=True, stored=True),
        Transformer("ernie", ([3], [7], [15]), further=True),
        Transformer("krea", ([2], [45], [87])),
        Transformer("anima", _T5S),
        Transformer("wan", ([2], [6], [10]), further=True, lost=True, lacks=_SINGLE),
    ),
}
HERE = TRANSFORMERS.get(HOST.name, ())
"""The transformers of the WebUI under test."""

BASE: dict[str, Any] = {"width": 128, "height": 128, "steps": 4, "scheduler": "simple", "cfg_scale": 3}
"""A schedule that all WebUIs have for flows. The automatic one is none for them in Forge."""

JOBS: dict[str, dict[str, Any]] = {
    "txt2img": {},
    "CFG 1": {"cfg_scale": 1},
    "batch 2, count 2": {"batch_size": 2, "n_iter": 2},
    "AND": {"prompt": "a cat AND a dog:0.6", "batch_size": 2},
    "editing": {"prompt": "a [dog:cat:0.3] in the sun", "steps": 8},
    "emphasis": {"prompt": "a (cat:1.4), a ((dog))"},
    "odd size": {"width": 136, "height": 120},
    "hires fix": {"enable_hr": True, "hr_scale": 2, "hr_upscaler": "Latent", "denoising_strength": 0.7, "width": 64,
                  "height": 64, "steps": 5},
    "img2img": {**START, "denoising_strength": 0.8},
    "inpainting": {**START, **MASK, "denoising_strength": 0.8},
}
FURTHER: dict[str, dict[str, Any]] = {
    "a long prompt": {"prompt": f"{FILLER}, {FILLER}, a cat, {FILLER}"},
    "a long negative prompt": {"negative_prompt": f"{FILLER}, {FILLER}, {FILLER}"},
    "NGMS": {"s_min_uncond": 0.8, "steps": 6},
    "soft inpainting": {**START, **MASK, **SOFT_INPAINTING, "denoising_strength": 0.8},
    "inpainting, only masked": {**START, **MASK, "inpaint_full_res": True, "denoising_strength": 0.8},
}
BY_HAND: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "painted, batch 2, count 2": (PAINTED, JOBS["batch 2, count 2"]),
    "painted, odd size": (PAINTED, JOBS["odd size"]),
    "painted, hires fix": (PAINTED, JOBS["hires fix"]),
    "painted, fresh, within the words": (
        {**PAINTED, "targets": "cat", "with_words": "intersection", "mask_timing": "fresh"},
        {},
    ),
    "painted, img2img": (PAINTED, JOBS["img2img"]),
    "inpaint mask": ({"region": "inpaint mask"}, JOBS["inpainting"]),
    "inpaint mask, only masked, inverted": (
        {"region": "inpaint mask"},
        {**JOBS["inpainting"], "inpaint_full_res": True, "inpainting_mask_invert": 1},
    ),
}
"""Settings and requests of a mask by hand, beside those of :data:`SETTINGS`."""
LOW_BITS = {
    "fp8": {"forge_unet_storage_dtype": "float8-e4m3fn"},
    "fp8, LoRA on the fly": {"forge_unet_storage_dtype": "float8-e4m3fn (fp16 LoRA)"},
    "LoRA on the fly": {"forge_unet_storage_dtype": "Automatic (fp16 LoRA)"},
}
"""How Forge and its relatives keep weights in few bits, and add a LoRA without touching them."""
APART = ("flux-dev-q8_0", "flux-dev-q4_0") if HOST is FORGE else ()
"""Checkpoints whose CLIP is a file of its own: Forge reads none from a GGUF."""
_LORAS = {"LoRA": {}, "LoRA on the fly": LOW_BITS["LoRA on the fly"]}
OTHERWISE_STORED: dict[str, dict[str, dict[str, Any]]] = {
    "q8_0": _LORAS,
    "q4_0": _LORAS,
    "nf4": {},
    "fp4": {},
    "offloaded": _LORAS,
}
"""How a transformer is stored beside its own checkpoint: as a GGUF, by bitsandbytes, and away from
where it is computed; and the options under which it is tried with a LoRA. The WebUIs add one to
what bitsandbytes made on a GPU alone: they call ``cuda()`` for it."""
SETTINGS = {
    "fresh": {"targets": "cat", "mask_timing": "fresh"},
    "static": {"targets": "cat", "mask_timing": "static"},
    "two targets": {"targets": "cat:0.3, dog", "curve": "exponential"},
    "whole picture": {"whole_picture": True},
    "automatic": {},
    "painted": PAINTED,
    "painted or words": {**PAINTED, "targets": "cat:0.8"},
}
NOT_FOR_FLOWS = {
    A1111.name: ("DDIM", "DDIM CFG++", "PLMS", "UniPC"),
    FORGE.name: ("DDIM", "DDIM CFG++", "PLMS", "UniPC", "LCM"),
}.get(HOST.name, ("DDIM", "PLMS"))
FAILING = ("LCM",) if HOST is A1111 else ()
"""Samplers with which the WebUI itself fails on a flow."""


BROKEN = {FORGE.name: ("automatic", "uniform"), NEO.name: ("uniform", "turbo")}.get(HOST.name, ())
"""Schedules that are none for flows, in the WebUI itself."""
RISING = ("align_your_steps",) if HOST is NEO else ()
"""Those whose last level is above the one before it, where the first is 1."""

REFERENCED = {
    "flux-kontext": {"denoising_strength": 0.95, **START},
    "qwen-edit": {"denoising_strength": 0.95, **START},
    "krea": {"denoising_strength": 0.95, **START},
    "klein": {"denoising_strength": 0.95, **START},
}
"""Models of Forge Neo that see the start picture beside the one that they make."""


def row(
    family: Transformer,
    name: str,
    settings: dict[str, Any] | None = None,
    more: Mapping[str, Any] | None = None,
    **request: Any,
) -> Row:
    """A row of ``family``; ``more`` are options of the WebUI's."""
    kind = "img2img" if "init_images" in request else "txt2img"
    options = {**dict(family.options), **(more or {})}
    return Row(f"{family.name}, {name}", {**BASE, **request}, settings, options, kind=kind, checkpoint=family.name)


def rows() -> Iterator[Row]:
    """Every family in every kind of job, and some with every sampler."""
    for family in HERE:
        for job, request in JOBS.items():
            if family.lacking(job) is None:
                yield from both(row(family, job, **request))
        for name, settings in SETTINGS.items():
            yield row(family, name, settings)
        if family.lost:
            lost = row(family, "a word behind BREAK", prompt="a dog BREAK a cat")
            yield replace(lost, unchanged=True, without=True, messages=("where the model reads the prompt no more",))
        for sampler in HOST.samplers if family.sampled else ():
            if sampler not in (*NOT_FOR_FLOWS, *FAILING):
                yield from both(row(family, sampler, sampler_name=sampler, steps=STEPS.get(sampler, 6)))
        for schedule in HOST.schedules if family.sampled else ():
            made = row(family, f"schedule {schedule}", scheduler=schedule, steps=6)
            if schedule in RISING:
                yield replace(made, unchanged=True, without=True, messages=("does not descend",))
            elif schedule not in BROKEN:
                yield from both(made)
        for sampler in NOT_FOR_FLOWS if family.sampled else ():
            refused = row(family, sampler, sampler_name=sampler, steps=6)
            twice = row(family, f"{sampler}, hires fix", sampler_name=sampler, **JOBS["hires fix"])
            for once in (refused, twice):  # a message, not one for each pass
                yield replace(once, unchanged=True, without=True, messages=("not for rectified flow models",))


def network(family: Transformer, kind: str = "lora") -> str:
    """The tag of a LoRA made for ``family``, of all its linear layers or of its "modulations"."""
    name = family.name.removesuffix("-t5")
    return f"{PROMPT} <lora:tiny-{name}-{kind}:1>"


def _otherwise_stored(family: Transformer) -> Iterator[Row]:
    for kind, loras in OTHERWISE_STORED.items():
        checkpoint = f"{family.name}-{kind}"
        apart = {"forge_additional_modules": ["tiny-apart.safetensors"]} if checkpoint in APART else {}
        made = list(both(row(family, kind, None, apart, batch_size=2)))
        for how, options in loras.items():
            made.append(row(family, f"{kind}, {how}", None, {**options, **apart}, prompt=network(family)))
        yield from (replace(one, checkpoint=checkpoint) for one in made)


def further_rows() -> Iterator[Row]:
    """LoRAs and weights in few bits of every family, and the :data:`FURTHER` jobs and masks by hand
    of some."""
    for family in HERE:
        yield from both(row(family, "LoRA", prompt=network(family)))
        for name, options in LOW_BITS.items() if HOST is not A1111 else ():
            yield row(family, name, None, options, prompt=network(family) if "LoRA" in name else PROMPT)
        yield from _otherwise_stored(family) if family.stored else ()
        for job, request in FURTHER.items() if family.further else ():
            yield from both(row(family, job, **request))
        for name, (settings, request) in BY_HAND.items() if family.further else ():
            if family.lacking(name.removeprefix("painted, ")) is None:
                yield row(family, name, settings, **request)
        if family.further:
            hires, second = JOBS["hires fix"], {"targets": "cat", "second_pass": "own concavity"}
            yield row(family, "hires fix, a second pass of its own", second, **hires)
    for name, request in REFERENCED.items() if HOST is NEO else ():
        family = Transformer(name, ())
        for referenced in both(row(family, "the start picture as a reference", **request)):
            yield replace(referenced, referenced=True)
    for by, options, switch in (("steps", {}, 0.5), ("a sigma", {"refiner_use_steps": False}, 0.8)):
        if HOST is NEO:
            low = {"refiner_checkpoint": "tiny-wan-low", "refiner_switch_at": switch, "steps": 8}
            yield from both(row(Transformer("wan", ()), f"high and low noise, by {by}", None, options, **low))
