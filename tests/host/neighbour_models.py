"""The models that real neighbours need beside the tiny checkpoints, in a WebUI's folder of models.

    cd tests && python host/neighbour_models.py MODELS EXTENSION...

Those of ControlNet are a control model for tiny-sd1, which begins as real ones do, as a copy of the
UNet's first half; of FreeU a checkpoint with feature maps of 320 channels, the fewest that it
knows; of ADetailer a detector that finds something anywhere. The WebUI's own Python runs this file.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

CONTROL, WIDE, DETECTOR = "tiny-control", "sd1-wide", "tiny-detector.pt"
HINT = (3, 16, 16, 32, 32, 96, 96, 256)
"""The channels of a control model's way from the picture to the UNet's first feature map."""


def control_model(checkpoint: dict[str, Tensor]) -> dict[str, Tensor]:
    torch.manual_seed(0)
    prefix = "model.diffusion_model."
    unet = {name.removeprefix(prefix): value for name, value in checkpoint.items() if name.startswith(prefix)}
    weights = {k: v for k, v in unet.items() if k.startswith(("time_embed", "input_blocks", "middle_block"))}
    first = len(unet["input_blocks.0.0.bias"])
    for n, (i, o) in enumerate(zip(HINT, (*HINT[1:], first), strict=True)):
        weights |= _convolution(f"input_hint_block.{2 * n}", i, o, 3)
    blocks = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("input_blocks"))
    for n in range(blocks):
        # A convolution, a ResBlock or a Downsample.
        names = (f"input_blocks.{n}.0.{layer}.bias" for layer in ("out_layers.3", "op"))
        channels = next((len(unet[name]) for name in names if name in unet), first)
        weights |= _convolution(f"zero_convs.{n}.0", channels, channels, 1)
    return weights | _convolution("middle_block_out.0", channels, channels, 1)


def _convolution(name: str, i: int, o: int, size: int) -> dict[str, Tensor]:
    weight = torch.randn(o, i, size, size) * (i * size * size) ** -0.5
    return {f"{name}.weight": weight.half(), f"{name}.bias": torch.zeros(o).half()}


def make_control_model(models: Path) -> None:
    weights = control_model(load_file(models / "Stable-diffusion" / "tiny-sd1.safetensors"))
    (models / "ControlNet").mkdir()
    save_file({k: v.contiguous() for k, v in weights.items()}, models / "ControlNet" / f"{CONTROL}.safetensors")


def make_wide(models: Path) -> None:
    from tiny_checkpoints import KINDS
    from tiny_checkpoints import make as make_checkpoint
    from tiny_checkpoints.kinds import Kind

    @dataclass(frozen=True)
    class Wide(Kind):
        @cached_property
        def unet(self) -> dict[str, Any]:
            return Kind().unet | {"channel_mult": [1, 2, 10, 10]}

    KINDS[WIDE] = Wide()
    make_checkpoint(models / "Stable-diffusion", WIDE)


def make_detector(models: Path) -> None:
    from ultralytics import YOLO

    torch.manual_seed(0)
    (models / "adetailer").mkdir()
    YOLO("yolov8n.yaml").save(models / "adetailer" / DETECTOR)


MAKERS = {"sd-webui-controlnet": make_control_model, "sd-webui-freeu": make_wide, "adetailer": make_detector}

if __name__ == "__main__":
    sys.path.insert(0, str(Path.cwd()))
    for extension in sys.argv[2:]:
        MAKERS[extension](Path(sys.argv[1]))
