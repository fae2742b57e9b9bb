"""Checkpoints again, with the weights of their linear layers in four or eight bits."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from .weights import SIZES, TRANSFORMER, told

GGUFS = ("Q8_0", "Q4_0")
FOUR_BITS = ("nf4", "fp4")
BLOCK = 32
"""How many weights of a row have a scale of their own in these kinds of GGUF."""


def quantised(checkpoint: Path, apart: str | None = None, sizes: dict[str, Any] | None = None) -> None:
    """Write the ``checkpoint`` again in every kind; in bitsandbytes' where the WebUI's Python has
    it.

    ``apart``: the prefix of a part that the WebUI reads from no GGUF. It is the text encoder
    "tiny-apart" beside them. ``sizes``: what the WebUI's detection is to be told where it cannot
    read widths from packed weights, which it then takes for the published ones.
    """
    weights = load_file(checkpoint)
    if apart is not None:
        left = {name: weights.pop(name) for name in [*weights] if name.startswith(apart)}
        save_file(left, checkpoint.parents[1] / "text_encoder" / "tiny-apart.safetensors")
    for kind in GGUFS:
        _gguf(weights, kind, checkpoint.with_name(f"{checkpoint.stem}-{kind.lower()}.gguf"))
    for kind in FOUR_BITS if find_spec("bitsandbytes") else ():
        _of_bitsandbytes(checkpoint, kind, sizes)


def _linear(name: str, value: Tensor) -> bool:
    return name.startswith(TRANSFORMER) and name.endswith(".weight") and value.dim() == 2


def _gguf(weights: dict[str, Tensor], kind: str, path: Path) -> None:
    """Write ``weights`` as a GGUF, with layers that have whole blocks as ``kind``."""
    import gguf  # the WebUI's own

    quantised = gguf.GGMLQuantizationType[kind]
    writer = gguf.GGUFWriter(path, "flux")
    for name, value in weights.items():
        if not value.dim():
            continue  # Forge Neo reads no single numbers, and no layer needs those
        if name == SIZES:
            writer.add_tensor(name, value.to(torch.int8).numpy())  # it is ASCII, and GGUF has no bytes
        elif _linear(name, value) and value.shape[1] % BLOCK == 0:
            writer.add_tensor(name, gguf.quants.quantize(value.float().numpy(), quantised), raw_dtype=quantised)
        else:
            writer.add_tensor(name, (value.float() if value.dtype == torch.bfloat16 else value).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _of_bitsandbytes(checkpoint: Path, kind: str, sizes: dict[str, Any] | None) -> None:
    from bitsandbytes.functional import quantize_4bit

    weights = load_file(checkpoint)
    if sizes is not None:
        weights[SIZES] = told(sizes)
    for name in [name for name in weights if _linear(name, weights[name])]:
        weights[name], state = quantize_4bit(weights[name], blocksize=64, quant_type=kind)
        weights |= {f"{name}.{part}": value for part, value in state.as_dict(packed=True).items()}
    save_file(weights, checkpoint.with_stem(f"{checkpoint.stem}-{kind}"), {"made_as": kind})
