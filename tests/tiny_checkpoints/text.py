"""Random text encoders: CLIP's as transformers has it, and OpenCLIP's."""

from __future__ import annotations

import gzip
import json
import shutil
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from .kinds import OPEN_CLIP, TEXT_WIDTH

TOKENIZER = Path(__file__).parents[2] / "asyndm_lib" / "demo" / "model" / "tokenizer"
CLIP_VOCABULARY = 49408
OFFSET = 0.5
"""The number that is added to every token.

Where no LayerNorm with a bias comes last (SDXL), the mean of a prompt would be about 0, and a WebUI
scales weighted prompts by a ratio of two such means.
"""


@dataclass(frozen=True)
class Encoder:
    """A text encoder. ``weights`` have the names of its parts; ``folder`` is its tokenizer's, for
    transformers."""

    name: str
    weights: dict[str, Tensor]
    folder: str = ""


def encoder(name: str, folder: Path, seed: int) -> Encoder:
    """The encoder ``name`` (see :class:`kinds.Kind`). The tokenizer that it needs is put into
    ``folder``."""
    torch.manual_seed(seed)
    if name == "open_clip":
        return Encoder(name, open_clip(OPEN_CLIP["width"], OPEN_CLIP["projection"], OPEN_CLIP["layers"]))
    own = folder / {"demo": "tiny-text", "clip": "tiny-text-clip"}[name]
    shutil.copytree(TOKENIZER, own, dirs_exist_ok=True)
    config = json.loads((own / "config.json").read_text()) | {
        "hidden_size": TEXT_WIDTH,
        "intermediate_size": 4 * TEXT_WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "projection_dim": TEXT_WIDTH,
    }
    if name == "clip":
        start, end = _clip_tokenizer(own)
        config |= {"vocab_size": CLIP_VOCABULARY, "bos_token_id": start, "eos_token_id": end, "pad_token_id": end}
    (own / "config.json").write_text(json.dumps(config))
    return Encoder(name, clip(config, OFFSET if name == "clip" else 0), str(own))


def weights(encoders: list[Encoder], sgm: bool) -> dict[str, Tensor]:
    """The encoders' weights in half precision, by their names in a checkpoint."""
    return {
        (f"conditioner.embedders.{number}." if sgm else "cond_stage_model.") + name: value.half()
        for number, encoder in enumerate(encoders)
        for name, value in encoder.weights.items()
    }


def _clip_tokenizer(folder: Path) -> tuple[int, int]:
    """Write CLIP's own tokenizer from OpenCLIP's file of it, and return the ids of start and
    end."""
    from transformers.models.clip.tokenization_clip import bytes_to_unicode

    (package,) = find_spec("open_clip").submodule_search_locations
    letters = list(bytes_to_unicode().values())
    vocabulary = [*letters, *(letter + "</w>" for letter in letters)]
    with gzip.open(Path(package) / "bpe_simple_vocab_16e6.txt.gz", "rt", encoding="utf-8") as file:
        version, *merges = file.read().split("\n")[: CLIP_VOCABULARY - len(vocabulary) - 2 + 1]
    vocabulary += [merge.replace(" ", "") for merge in merges] + ["<|startoftext|>", "<|endoftext|>"]
    (folder / "merges.txt").write_text("\n".join([version, *merges, ""]), encoding="utf-8")
    ids = {token: number for number, token in enumerate(vocabulary)}
    (folder / "vocab.json").write_text(json.dumps(ids), encoding="utf-8")
    return len(vocabulary) - 2, len(vocabulary) - 1


def clip(config: dict, offset: float) -> dict[str, Tensor]:
    """The text half of a CLIP of transformers' ``config``. ``offset`` is added to every token."""
    from transformers import CLIPTextConfig, CLIPTextModel

    text = CLIPTextModel(CLIPTextConfig(**config))
    with torch.no_grad():
        for name, parameter in text.named_parameters():
            # Weight 1 and bias 0 would make the mean of every text vector 0, and a WebUI's weighted
            # prompt 0/0.
            if "final_layer_norm" in name:
                torch.nn.init.uniform_(parameter, 0.5, 1.5) if name.endswith("weight") else parameter.normal_(std=0.3)
            elif offset and "token_embedding" in name:
                parameter.normal_(std=1).add_(offset)
    prefix = "transformer.text_model."
    return {
        prefix + name.removeprefix("text_model."): value
        for name, value in text.state_dict().items()
        if not name.endswith("position_ids")
    }


def open_clip(width: int, projection: int, layers: int, mlp: int = 4) -> dict[str, Tensor]:
    """The text half of an OpenCLIP model, under its own names. ``mlp`` is the factor of its hidden
    layers' width."""

    def linear(name: str, rows: int, columns: int) -> dict[str, Tensor]:
        separator = "_" if name.endswith("in_proj") else "."
        return {
            f"{name}{separator}weight": torch.randn(rows, columns) * columns**-0.5,
            f"{name}{separator}bias": torch.zeros(rows),
        }

    def norm(name: str) -> dict[str, Tensor]:
        return {f"{name}.weight": torch.rand(width) + 0.5, f"{name}.bias": torch.randn(width) * 0.3}

    text = {
        "token_embedding.weight": torch.randn(CLIP_VOCABULARY, width) * 0.02,
        "positional_embedding": torch.randn(77, width) * 0.01 + OFFSET,
        "text_projection": torch.randn(width, projection) * width**-0.5,
        "logit_scale": torch.tensor(2.66),
        **norm("ln_final"),
    }
    for layer in range(layers):
        block = f"transformer.resblocks.{layer}"
        text |= norm(f"{block}.ln_1") | norm(f"{block}.ln_2")
        text |= linear(f"{block}.attn.in_proj", 3 * width, width) | linear(f"{block}.attn.out_proj", width, width)
        text |= linear(f"{block}.mlp.c_fc", mlp * width, width)
        text |= linear(f"{block}.mlp.c_proj", width, mlp * width)
    return {"model." + name: value for name, value in text.items()}
