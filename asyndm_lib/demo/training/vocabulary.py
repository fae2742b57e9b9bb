"""A small vocabulary in CLIP's format, and a plain byte-pair encoder for single words.

The merges of CLIP's byte-pair encoding are ordered by frequency, so the first few thousand are a
valid encoding of their own. Every text still has tokens; rare words only take more of them.
"""

from __future__ import annotations

import itertools
import json
from functools import cached_property
from pathlib import Path

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
CONTEXT_LENGTH = 77
TEXT_CONFIG = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 1, "num_attention_heads": 4}
"""The size of the text encoder. It has one layer, so that a word's meaning stays at its token."""


def byte_symbols() -> list[str]:
    """The printable stand-ins of the 256 bytes, in the order in which CLIP numbers them."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return [chr(byte) for byte in visible] + [chr(256 + index) for index in range(len(hidden))]


def write_tokenizer(merges_file: Path, folder: Path, merges: int, text_config: dict) -> None:
    """Write a tokenizer folder with CLIP's first ``merges`` merges, and the text model's
    ``config.json``."""
    lines = merges_file.read_text(encoding="utf-8").split("\n")[1 : merges + 1]
    symbols = byte_symbols()
    tokens = symbols + [symbol + "</w>" for symbol in symbols] + ["".join(line.split()) for line in lines] + [BOS, EOS]
    folder.mkdir(parents=True, exist_ok=True)
    write = {
        "vocab.json": {token: index for index, token in enumerate(tokens)},
        "tokenizer_config.json": {
            "model_max_length": CONTEXT_LENGTH, "do_lower_case": True, "add_prefix_space": False, "errors": "replace",
            "tokenizer_class": "CLIPTokenizer", "bos_token": BOS, "eos_token": EOS, "pad_token": EOS,
            "unk_token": EOS},
        "special_tokens_map.json": {"bos_token": BOS, "eos_token": EOS, "pad_token": EOS, "unk_token": EOS},
        "config.json": {
            "architectures": ["CLIPTextModel"], "model_type": "clip_text_model", **text_config,
            "max_position_embeddings": CONTEXT_LENGTH, "vocab_size": len(tokens), "hidden_act": "quick_gelu",
            "layer_norm_eps": 1e-05, "attention_dropout": 0.0, "dropout": 0.0, "initializer_factor": 1.0,
            "initializer_range": 0.02, "projection_dim": text_config["hidden_size"],
            "bos_token_id": len(tokens) - 2, "eos_token_id": len(tokens) - 1, "pad_token_id": len(tokens) - 1,
            "torch_dtype": "float32"},
    }
    for name, content in write.items():
        text = json.dumps(content, ensure_ascii=False, indent=None if name == "vocab.json" else 1)
        (folder / name).write_text(text + "\n", encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(lines) + "\n", encoding="utf-8")


class WordEncoder:
    """An encoder of single lower-case words and punctuation marks, with the token ids of CLIP's
    tokenizer."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.ids = json.loads((self.folder / "vocab.json").read_text(encoding="utf-8"))
        self.bos, self.eos = self.ids[BOS], self.ids[EOS]
        self._known: dict[str, tuple[int, ...]] = {}

    @cached_property
    def _ranks(self) -> dict[tuple[str, str], int]:
        lines = (self.folder / "merges.txt").read_text(encoding="utf-8").split("\n")[1:]
        return {tuple(line.split()): rank for rank, line in enumerate(lines) if line}

    def __call__(self, word: str) -> tuple[int, ...]:
        if word not in self._known:
            parts = [*word[:-1], word[-1] + "</w>"]
            while len(parts) > 1:
                pairs = list(itertools.pairwise(parts))
                best = min(range(len(pairs)), key=lambda index: self._ranks.get(pairs[index], 1 << 30))
                if pairs[best] not in self._ranks:
                    break
                parts[best : best + 2] = [parts[best] + parts[best + 1]]
            self._known[word] = tuple(self.ids[part] for part in parts)
        return self._known[word]
