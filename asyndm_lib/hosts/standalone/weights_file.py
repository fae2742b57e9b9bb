"""Weights in a file, and what a file is that holds no Stable Diffusion 1 or 2 checkpoint."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ...errors import Unsupported

KINDS: dict[str, tuple[str, ...]] = {
    "a LoRA (use it in a WebUI, with the checkpoint that it belongs to)": (
        *(".lora_down.", ".lora_up.", ".lora_A.", ".lora_B.", ".hada_w1_a", ".lokr_w1", ".oft_blocks", ".dora_scale"),
        *("lora_unet_", "lora_te_", "lora_te1_"),
    ),
    "a ControlNet": ("control_model.", "controlnet_cond_embedding.", "controlnet_blocks."),
    "a Stable Diffusion XL checkpoint": ("conditioner.embedders.",),
    "a Stable Diffusion 3 checkpoint": ("joint_blocks.",),
    "a Flux checkpoint": ("double_blocks.", "single_transformer_blocks."),
    "a textual inversion": ("emb_params", "string_to_param"),
}
"""Other kinds of files, by parts of their weights' names. The first that fits holds."""

PARTS: dict[str, tuple[str, ...]] = {
    "a part of a model in the form of diffusers": ("down_blocks.", "encoder.down_blocks.", "conv_norm_out."),
    "a text encoder alone": ("text_model.", "cond_stage_model.", "transformer.resblocks."),
    "a VAE alone": ("first_stage_model.", "decoder.", "post_quant_conv."),
}
"""Files without the model itself, by how some of their names begin."""

MODEL = "model.diffusion_model."


def names_in(file: Path) -> list[str]:
    """The names of the weights in a .safetensors file, read from its head alone.

    Other files have none. Raises :class:`Unsupported` as :func:`read`.
    """
    if file.suffix.lower() != ".safetensors":
        return []
    _refuse_other_contents(file)
    return [name for name in _head(file) if name != "__metadata__"]


def other_kind(names: Iterable[str]) -> str | None:
    """What a file with weights of these names is; None for a Stable Diffusion 1 or 2 checkpoint,
    and where there are none."""
    names = list(names)
    for kind, parts in KINDS.items():
        if any(part in name for name in names for part in parts):
            return kind
    if not names or any(name.startswith(MODEL) for name in names):
        return None
    return next((kind for kind, begins in PARTS.items() if any(name.startswith(begins) for name in names)),
                "no checkpoint of a model that draws")


def read(file: Path) -> dict[str, Tensor]:
    """The weights of a .safetensors or .ckpt file.

    Raises :class:`Unsupported` that names the file and what is wrong with it.
    """
    _refuse_other_contents(file)
    try:
        if file.suffix.lower() == ".safetensors":
            _head(file)
            return load_file(file)
        weights = torch.load(file, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, EOFError, KeyError, ValueError) as error:
        cut = " (it may be cut short: download it again)" if _begins(file).startswith(b"PK") else ""
        raise Unsupported(f"{file} cannot be read as a checkpoint{cut}: {in_one_line(error)}") from error
    except Exception as error:  # pickle's own; its text is long and advises to load the file all the same
        raise Unsupported(f"{file} holds more than weights and is not loaded; use a .safetensors of it") from error
    if isinstance(weights, Mapping):
        weights = weights.get("state_dict", weights)
    if not isinstance(weights, Mapping):
        raise Unsupported(f"{file} cannot be read as a checkpoint: it holds a {type(weights).__name__}")
    return dict(weights)


def _begins(file: Path) -> bytes:
    with file.open("rb") as content:
        return content.read(512)


def _refuse_other_contents(file: Path) -> None:
    begins = _begins(file)
    if not begins:
        raise Unsupported(f"{file} is empty: download it again")
    if begins.startswith(b"version https://git-lfs"):
        raise Unsupported(f"{file} is a pointer of Git LFS and no checkpoint: `git lfs pull` gets the file itself")
    if begins.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        raise Unsupported(f"{file} is a web page and no checkpoint: download the file itself")
    if file.suffix.lower() == ".safetensors" and zipfile.is_zipfile(file):
        raise Unsupported(f"{file} is a .ckpt by its content: rename it")


def _head(file: Path) -> dict[str, dict]:
    """What a .safetensors file says of its weights.

    Raises :class:`Unsupported` if it is none, or shorter than it says.
    """
    size = file.stat().st_size
    with file.open("rb") as content:
        length = int.from_bytes(content.read(8), "little")
        if size < 8 or not 2 <= length <= 10**8:
            raise Unsupported(f"{file} cannot be read as a checkpoint: it is no .safetensors file")
        if length + 8 > size:
            raise _cut(file, size, length + 8)
        try:
            head = json.loads(content.read(length))
            ends = [one["data_offsets"][1] for name, one in head.items() if name != "__metadata__"]
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
            raise Unsupported(f"{file} cannot be read as a checkpoint: its head is damaged") from error
    if all(isinstance(end, int) for end in ends) and (whole := 8 + length + max(ends, default=0)) > size:
        raise _cut(file, size, whole)
    return head


def _cut(file: Path, size: int, whole: int) -> Unsupported:
    return Unsupported(f"{file} is cut short: {size:,} of at least {whole:,} bytes are there; download it again")


def in_one_line(error: Exception) -> str:
    """An error's text in one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__
