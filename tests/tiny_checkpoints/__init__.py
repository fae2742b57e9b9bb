"""Tiny Stable Diffusion checkpoints with random weights, with their YAML beside them.

    cd tests && python -m tiny_checkpoints FOLDER

They have the layers and the weights' names of their families, so that a WebUI loads them too.
Random weights would leave every sampler in the noise that it began with; see
:func:`unet.pass_input_through`. Those of the SDXL family are loaded by sgm, but made with ldm's
parts, which have the same names and load in a third of the time.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from . import config, text, unet
from .kinds import KINDS, TEXT_WIDTH

__all__ = ["KINDS", "TEXT_WIDTH", "make"]


def make(folder: Path, kind: str) -> Path:
    """Write the checkpoint of a kind (a name in :data:`KINDS`) into ``folder``, and return its
    path."""
    folder = folder.resolve()  # a WebUI wants the absolute path of the text folder
    of = KINDS[kind]
    encoders = [text.encoder(name, folder, of.seed) for name in of.text]
    weights = unet.weights(of) | text.weights(encoders, of.sgm)
    weights = {name: value.contiguous() for name, value in weights.items()}
    path = folder / f"tiny-{kind}"
    if path.suffix == ".ckpt":
        torch.save({"state_dict": weights}, path)
        return path
    path = path.with_suffix(".safetensors")
    # A WebUI knows a checkpoint by its hash: the kinds must differ in it.
    save_file(weights, path, {"made_as": kind})
    # JSON is YAML.
    path.with_suffix(".yaml").write_text(json.dumps(config.write(of, encoders), indent=2))
    return path
