"""The rows of what Forge and its relatives have beside A1111: built-in extensions, and long prompts
their way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from family import HOST
from materials import CONTROL
from requests_table import FILLER, SMALL, START, Row, drawing, in_base64
from sampler_rows import HIRES, STATIC, both

CONTROL_UNIT = {"image": in_base64(drawing()), "module": "None", "model": CONTROL, "save_detected_map": False}
EXTENSIONS: dict[str, tuple[str, list[Any]]] = {
    "ControlNet": ("controlnet", [CONTROL_UNIT]),
    "FreeU": ("freeu integrated (sd 1.x, sd 2.x, sdxl)", [True, 1.3, 1.4, 0.9, 0.6, 0.0, 1.0]),
    "Kohya HR fix": ("kohya hrfix integrated", [True, 3, 2.0, 0.0, 0.6, True, "bicubic", "bicubic"]),
    "PAG": ("perturbedattentionguidance integrated", [True, 3.0, 0.0, 0.0, 1.0]),
    "SAG": ("selfattentionguidance integrated (sd 1.x, sd 2.x, sdxl)", [True, 0.75, 2.0, 1.0]),
    "Dynamic Thresholding": (
        "dynamicthresholding (cfg-fix) integrated",
        [True, 2.0, 0.95, "Constant", 0.0, "Constant", 0.0, 4.0, "enable", "MEAN", "AD", 1.0],
    ),
    "StyleAlign": ("stylealign integrated", [True, 1.0]),
    "Never OOM": ("never oom integrated", [True, True]),
    "MultiDiffusion": ("multidiffusion integrated", [True, "MultiDiffusion", 64, 64, 16, 1]),
    **HOST.extensions,
}
"""The script and the arguments of each extension. SAG works on the larger pictures only."""

_SIZE = {"width": 128, "height": 128, "steps": 5}


def _with(*names: str, **request: Any) -> dict[str, Any]:
    scripts = {script: {"args": args} for script, args in (EXTENSIONS[name] for name in names)}
    return {**_SIZE, **request, "alwayson_scripts": scripts}


def rows() -> Iterator[Row]:
    for name in EXTENSIONS:
        checkpoint = "sd1-wide" if name == "FreeU" else "sd1"
        batch = {"batch_size": 2} if name == "StyleAlign" else {}
        for sampler in ("Euler", "DDIM"):
            request = _with(name, sampler_name=sampler, **batch)
            yield from both(Row(f"{name}, {sampler}", request, checkpoint=checkpoint))
    for name in ("ControlNet", "PAG", "SAG"):
        yield Row(f"{name}, static, Euler a", _with(name, sampler_name="Euler a"), STATIC)
        yield Row(f"{name}, AND, batch size 2", _with(name, prompt="a cat AND a dog:0.6", batch_size=2))
        yield Row(f"{name}, long negative", _with(name, negative_prompt=FILLER))
    for name in ("ControlNet", "PAG", "Kohya HR fix"):
        hires = {**HIRES, "hr_scale": 1.5, "width": 96, "height": 96}
        yield from both(Row(f"{name}, hires fix", {**_with(name), **hires}))
    start = {**START, "denoising_strength": 0.7}
    yield Row("ControlNet, img2img", _with("ControlNet", **start), kind="img2img")
    yield Row("ControlNet, PAG, SAG, Kohya HR fix", _with("ControlNet", "PAG", "SAG", "Kohya HR fix"))
    for cfg in (1, 9):
        yield from both(Row(f"hires fix, CFG {cfg}", {**HIRES, "hr_cfg": cfg}))
    yield Row("hires fix, CFG 1 in both", {**HIRES, "cfg_scale": 1, "hr_cfg": 1})
    for name, request in {
        "joined": {"negative_prompt": ", ".join([FILLER] * 2)},
        "of 3 and 2 chunks": {"prompt": f"{FILLER}, a cat", "negative_prompt": ", ".join([FILLER] * 2)},
        "apart": {"negative_prompt": ", ".join([FILLER] * 5)},
        "apart, AND": {"prompt": "a cat AND a dog:0.6", "negative_prompt": ", ".join([FILLER] * 5), "batch_size": 2},
    }.items():
        yield from both(Row(f"lengths {name}", {**SMALL, **request}))
        yield Row(f"lengths {name}, sdxl", {**SMALL, **request}, checkpoint="sdxl")
