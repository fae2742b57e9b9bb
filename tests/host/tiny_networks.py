"""Small networks of random weights beside the tiny checkpoints, in a WebUI's folder of models.

    python tests/host/tiny_networks.py MODELS LORA HYPERNETWORK

There is a LoRA for every linear layer of tiny-sd1's UNet and text encoder, those of its timesteps
among them. There are a hypernetwork, and a TAESD that the WebUI would otherwise download. The
WebUI's own Python runs this file, since the WebUI refuses what later versions of PyTorch write.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

RANK = 4
# Prefixes in the checkpoint → kohya's.
PARTS = {
    "model.diffusion_model.": "lora_unet_",
    "cond_stage_model.transformer.text_model.encoder.": "lora_te_text_model_encoder_",
}


def make(models: Path, lora: str, hypernetwork: str) -> None:
    """Write them into ``models``. ``lora`` and ``hypernetwork`` are their names."""
    torch.manual_seed(0)
    for folder in ("Lora", "hypernetworks", "VAE-taesd"):
        (models / folder).mkdir()
    with safe_open(models / "Stable-diffusion" / "tiny-sd1.safetensors", "pt") as checkpoint:
        shapes = {name: checkpoint.get_slice(name).get_shape() for name in checkpoint.keys()}  # noqa: SIM118
    save_file(_lora(shapes), models / "Lora" / f"{lora}.safetensors")
    text_width = shapes["model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight"][1]
    torch.save(_hypernetwork(hypernetwork, text_width), models / "hypernetworks" / f"{hypernetwork}.pt")
    torch.manual_seed(0)  # whatever was drawn before: with some numbers all its pictures are black
    torch.save(dict(_taesd(DECODER)), models / "VAE-taesd" / "taesd_decoder.pth")
    torch.save(dict(_taesd(ENCODER)), models / "VAE-taesd" / "taesd_encoder.pth")


def _lora(shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    weights = {}
    for name, shape in shapes.items():
        prefix = next((prefix for prefix in PARTS if name.startswith(prefix)), None)
        if prefix is None or len(shape) != 2:
            continue
        layer = PARTS[prefix] + name.removeprefix(prefix).removesuffix(".weight").replace(".", "_")
        rows, columns = shape
        # Together a third of the layer's own weights in size.
        weights[f"{layer}.lora_down.weight"] = torch.randn(RANK, columns) * columns**-0.5
        weights[f"{layer}.lora_up.weight"] = torch.randn(rows, RANK) * 0.15
        weights[f"{layer}.alpha"] = torch.tensor(float(RANK))
    return weights


def _hypernetwork(name: str, width: int) -> dict:
    """A hypernetwork for keys and values of text vectors of ``width``. The WebUI adds its output to
    them."""

    def layers() -> dict[str, Tensor]:
        return {
            "linear.0.weight": torch.randn(2 * width, width) * width**-0.5,
            "linear.0.bias": torch.zeros(2 * width),
            "linear.2.weight": torch.randn(width, 2 * width) * 0.5 * (2 * width) ** -0.5,
            "linear.2.bias": torch.zeros(width),
        }

    about = {"name": name, "layer_structure": [1, 2, 1], "activation_func": "relu", "activate_output": False}
    return {width: (layers(), layers()), **about}


# What stands at the places of a TAESD that have weights: channels in and out, whether biased; None
# is a block.
_BARE = (64, 64, False)
DECODER = dict.fromkeys((3, 4, 5, 8, 9, 10, 13, 14, 15, 18)) | dict.fromkeys((7, 12, 17), _BARE)
DECODER |= {1: (4, 64, True), 19: (64, 3, True)}
ENCODER = dict.fromkeys((1, 3, 4, 5, 7, 8, 9, 11, 12, 13)) | dict.fromkeys((2, 6, 10), _BARE)
ENCODER |= {0: (3, 64, True), 14: (64, 4, True)}


def _taesd(places: dict[int, tuple[int, int, bool] | None]) -> Iterator[tuple[str, Tensor]]:
    for place, what in places.items():
        if what is None:
            for n in (0, 2, 4):
                yield from _convolution(f"{place}.conv.{n}", 64, 64, True)
        else:
            yield from _convolution(str(place), *what)


def _convolution(name: str, channels: int, out: int, biased: bool) -> Iterator[tuple[str, Tensor]]:
    yield f"{name}.weight", torch.randn(out, channels, 3, 3) * (9 * channels) ** -0.5
    if biased:
        yield f"{name}.bias", torch.randn(out) * 0.1


if __name__ == "__main__":
    make(Path(sys.argv[1]), *sys.argv[2:])
