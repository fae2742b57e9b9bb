"""The rows of what Forge Neo has alone: flow models on SDXL's UNet, and samplers that are for
these."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from family import NEO
from materials import FLOW, LORA
from model_rows import ALIKE
from requests_table import MASK, PROMPT, SMALL, START, Row
from sampler_rows import HIRES, STATIC, both

from asyndm_lib.samplers.neo.table import LABELS


def rows() -> Iterator[Row]:
    def row(name: str, settings: Any = None, kind: str = "txt2img", **request: Any) -> Row:
        # The host's "automatic" ends a flow twice at 0, where most of its own samplers make nothing
        # of the picture.
        request = {**SMALL, "steps": 4, "scheduler": "simple", **request}
        return Row(f"flow, {name}", request, settings, kind=kind, checkpoint=FLOW)

    for sampler in (*NEO.samplers, "DPM++ 2s a RF"):
        of, _ = LABELS[sampler]
        if of.not_for_flows:
            without = {"unchanged": True, "without": True, "messages": ("not for rectified flow models",)}
            yield replace(row(sampler, sampler_name=sampler), **without)
        elif of.takes("flow"):
            yield from both(row(sampler, sampler_name=sampler))
        else:
            yield row(sampler, sampler_name=sampler)
    descends = {"unchanged": True, "without": True, "messages": ("does not descend",)}
    yield replace(row("automatic, Euler", sampler_name="Euler", scheduler="automatic"), **descends)
    yield from both(row("static, Euler a", STATIC, sampler_name="Euler a"))
    yield row("whole picture, DPM++ 2M", {"whole_picture": True}, sampler_name="DPM++ 2M")
    yield row("AND, batch size 2", prompt="a cat AND a dog:0.6", batch_size=2)
    yield row("CFG 1", cfg_scale=1)
    yield from both(row("hires fix", **HIRES))
    start = {**START, "denoising_strength": 0.8}
    yield from both(row("img2img, Euler a", kind="img2img", **start, sampler_name="Euler a"))
    yield from both(row("inpainting", kind="img2img", **start, **MASK))
    yield from _mugen(start)
    for sampler in ("Euler CFG++", "Euler a CFG++", "DPM++ 2M CFG++"):
        yield from both(Row(f"{sampler}, CFG 1", {**SMALL, "sampler_name": sampler, "cfg_scale": 1}))
        yield Row(f"{sampler}, CFG 1.5", {**SMALL, "sampler_name": sampler, "cfg_scale": 1.5}, STATIC)
    refiner = {**SMALL, "steps": 8, "refiner_checkpoint": "tiny-sd1-v", "refiner_switch_at": 3.0}
    yield from both(Row("refiner at a sigma", refiner, options={"refiner_use_steps": False}))
    yield Row("refiner, which hires fix leaves out", {**refiner, **HIRES})
    in_place = {**refiner, "refiner_checkpoint": f"tiny-{ALIKE[1]}", "refiner_switch_at": 0.5}
    # With a LoRA the host leaves wrong weights in the model until another is loaded, as the next
    # row does.
    lora = {"checkpoint": "sd1-v", "prompt": f"{PROMPT} <lora:{LORA}:1>"}
    for name, of in {"": {"checkpoint": "sd1", "prompt": PROMPT}, ", LoRA": lora}.items():
        request, options = {**in_place, "prompt": of["prompt"]}, {"refiner_fast_sd": True}
        yield from both(Row(f"refiner in place{name}", request, options=options, checkpoint=of["checkpoint"]))
    tiles = {"multidiffusion integrated": {"args": [True, "MultiDiffusion", 256, 256, 16, 1]}}
    request = {**start, "width": 320, "height": 256, "steps": 5, "alwayson_scripts": tiles}
    yield Row("MultiDiffusion, img2img", request, kind="img2img")
    alone = {"unchanged": True, "without": True, "messages": ("cannot make a single step",)}
    yield Row("UniPC, 1 step", {**SMALL, "sampler_name": "UniPC", "steps": 1}, **alone)


def _mugen(start: dict[str, Any]) -> Iterator[Row]:
    def row(name: str, settings: Any = None, **request: Any) -> Row:
        request = {**SMALL, "steps": 4, "scheduler": "simple", **request}
        kind = "img2img" if "init_images" in request else "txt2img"
        return Row(f"Mugen, {name}", request, settings, kind=kind, checkpoint="mugen")

    for sampler in ("Euler", "Euler a", "DPM++ 2M SDE"):
        yield from both(row(sampler, sampler_name=sampler))
    yield row("static, batch size 2", STATIC, batch_size=2)
    yield row("another shift", distilled_cfg_scale=6.0)
    yield row("hires fix", **HIRES)
    yield from both(row("inpainting", **{**start, **MASK, "steps": 8}))
