"""Random weights of a size with which every input counts."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

SIZES = "tiny_sizes"
"""The tensor of a checkpoint that holds, as JSON, what the WebUI's own detection is to be told."""

SHARP = 2.5
"""How far norms of queries and keys are above 1: so much that words and places count."""
NORMS = ("query_norm", "key_norm", "q_norm", "k_norm", "norm_q", "norm_k", "norm_added_q", "norm_added_k")
NORMS = (*NORMS, "ln_q", "ln_k")
"""The names of those norms in all WebUIs."""

TRANSFORMER = "model.diffusion_model."
"""What the names of a transformer's weights begin with in a checkpoint."""
RANK = 4
MODULATIONS = ("mod", "adaln", "time", "t_embedder", "guidance", "tproj", "tmlp", "final", "head")
"""Parts of the names of the layers that make a timestep's embedding or modulations of it."""


def shapes(make: Callable[[], nn.Module]) -> dict[str, Tensor]:
    """The weights of the module that ``make`` makes, without their values."""
    with torch.device("meta"), torch.no_grad():
        return make().state_dict()


def random(of: Mapping[str, Tensor], seed: int, dtype: torch.dtype = torch.float16) -> dict[str, Tensor]:
    """Random values for the weights ``of`` a module."""
    draw = torch.Generator().manual_seed(seed)
    values = {name: _random(name, value.shape, draw) for name, value in of.items()}
    return {name: value.to(dtype if of[name].is_floating_point() else of[name].dtype) for name, value in values.items()}


def _random(name: str, shape: torch.Size, draw: torch.Generator) -> Tensor:
    *_, owner, last = ["", *name.split(".")]
    if last.startswith("running_") or not shape:
        return torch.ones(shape) if last == "running_var" else torch.zeros(shape)
    if len(shape) > 1:
        return torch.randn(shape, generator=draw) * shape[1:].numel() ** -0.5
    if last in ("scale", "weight", "gamma"):
        value = 0.5 + torch.rand(shape, generator=draw)
        return value * SHARP if owner in NORMS else value
    return torch.randn(shape, generator=draw) * 0.1


def again(path: Path, kind: str) -> None:
    """Give the checkpoint at ``path`` a second name: a WebUI loads it anew, with other options."""
    other = path.with_stem(f"tiny-{kind}")
    other.unlink(missing_ok=True)
    os.link(path, other)


def told(sizes: Mapping[str, Any]) -> Tensor:
    """``sizes`` as :data:`SIZES` holds them."""
    return torch.tensor(list(json.dumps(sizes).encode()), dtype=torch.uint8)


def write(path: Path, parts: Mapping[str, Mapping[str, Tensor]], sizes: Mapping[str, Any] | None = None) -> None:
    """Write a checkpoint of ``parts``, by their prefixes."""
    weights = {prefix + name: value.contiguous() for prefix, part in parts.items() for name, value in part.items()}
    if sizes is not None:
        weights[SIZES] = told(sizes)
    # A WebUI knows a checkpoint by its hash: the kinds must differ in it.
    save_file(weights, path, {"made_as": path.stem})
    layers = {
        name.removeprefix(TRANSFORMER): value.shape
        for name, value in weights.items()
        if name.startswith(TRANSFORMER) and name.endswith(".weight") and value.dim() == 2
    }
    modulations = {name: shape for name, shape in layers.items() if any(part in name.lower() for part in MODULATIONS)}
    folder = path.parents[1] / "Lora"
    folder.mkdir(exist_ok=True)
    save_file(lora(layers), folder / f"{path.stem}-lora.safetensors")
    save_file(lora(modulations), folder / f"{path.stem}-modulations.safetensors")


def lora(layers: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """A LoRA of random values for the linear ``layers`` of a transformer, under kohya's names.

    Together they are a third of the layers' own weights in size.
    """
    draw = torch.Generator().manual_seed(7)
    values = {}
    for name, (rows, columns) in layers.items():
        own = "lora_unet_" + name.removesuffix(".weight").replace(".", "_")
        values[f"{own}.lora_down.weight"] = torch.randn(RANK, columns, generator=draw) * columns**-0.5
        values[f"{own}.lora_up.weight"] = torch.randn(rows, RANK, generator=draw) * 0.15
    return values
