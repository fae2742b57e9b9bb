"""The text encoders of Stable Diffusion 1 and 2: words → tokens → the cross-attention context.

A prompt is taken literally: brackets and weights of the WebUIs are plain text. It is cut into
chunks of 75 tokens, each between a start and an end token. The chunks' contexts stand one after
another.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from ...errors import Unsupported
from ...prompt.token_search import Token
from ...prompt.vocabulary import as_written, text_token

CHUNK = 75
CHUNK_ROWS = CHUNK + 2
"""How many rows of the context a chunk takes."""
MAX_CHUNKS = 10
"""The most chunks of a prompt. A longer one is refused, since the picture would follow no part of
it."""


class TextEncoder(Protocol):
    """What the encoders of this module have in common. ``padding`` is the token that fills a
    chunk."""

    start: int
    end: int
    padding: int

    def ids(self, text: str) -> list[int]:
        """The tokens of ``text``, without start and end."""

    def name(self, token: int) -> str:
        """How the vocabulary writes ``token``."""

    def context(self, ids: Tensor) -> Tensor:
        """The contexts ``[n, 77, C]`` of rows of 77 tokens, int64 ``[n, 77]``."""


def tokenize(encoder: TextEncoder, text: str) -> list[Token]:
    """The tokens of ``text`` where they stand in the context."""
    tokens = [
        text_token(key, at // CHUNK * CHUNK_ROWS + 1 + at % CHUNK, encoder.name(key))
        for at, key in enumerate(encoder.ids(text))
    ]
    return as_written(tokens, map(encoder.ids, text.split()))


def encode(encoder: TextEncoder, texts: Sequence[str], device: torch.device | str) -> Tensor:
    """The cross-attention context of ``texts``, ``[n, 77·chunks, C]``. Short texts are filled with
    empty chunks.

    Raises :class:`Unsupported` for a text of more than ``MAX_CHUNKS`` chunks.
    """
    ids = [encoder.ids(text) for text in texts]
    for text, tokens in zip(texts, ids, strict=True):
        if len(tokens) > CHUNK * MAX_CHUNKS:
            raise Unsupported(
                f"the prompt {text!r:.40}… has {len(tokens)} tokens; at most {CHUNK * MAX_CHUNKS} can be used"
            )
    chunks = max(1, *(-(-len(tokens) // CHUNK) for tokens in ids))
    rows = []
    for tokens in ids:
        for chunk in range(chunks):
            row = tokens[chunk * CHUNK : (chunk + 1) * CHUNK]
            rows.append([encoder.start, *row, encoder.end, *[encoder.padding] * (CHUNK - len(row))])
    with torch.no_grad():
        context = encoder.context(torch.tensor(rows, device=device))
    return context.float().reshape(len(texts), chunks * CHUNK_ROWS, -1)


def pooled(encoder: TextEncoder, texts: Sequence[str], context: Tensor) -> Tensor:
    """The one vector of each text, ``[n, C]``: the context at the end token of its first chunk."""
    ends = [1 + min(len(encoder.ids(text)), CHUNK) for text in texts]
    return context[torch.arange(len(ends)), ends]


class Clip(nn.Module):
    """OpenAI's CLIP, by transformers: ``FrozenCLIPEmbedder`` of Stable Diffusion 1."""

    def __init__(self, version: str, beside: Path):
        """``version`` is a folder with the model's ``config.json`` and tokenizer, absolute or
        relative to ``beside``. It may also be the name of a Hugging Face model that is already on
        this machine.

        Raises :class:`Unsupported` if there is none.
        """
        from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

        super().__init__()
        folder = beside / version
        source = str(folder) if folder.is_dir() else version
        try:
            config = CLIPTextConfig.from_pretrained(source, local_files_only=True)
            self._tokenizer = CLIPTokenizer.from_pretrained(source, local_files_only=True)
        except Exception as error:  # transformers and the hub raise whatever their version likes
            raise Unsupported(
                f"the text encoder {version!r} is not on this machine as a whole: no folder of that name at {beside} "
                f"and no copy from the Hugging Face hub (a config.json, vocab.json and merges.txt are needed)"
            ) from error
        self._tokenizer.model_max_length = 10**9  # longer texts are cut into chunks here; no warning
        self.transformer = CLIPTextModel(config)
        # Config files of CLIP's first years name other ids than the tokenizer does.
        self.start, self.end = self._tokenizer.bos_token_id, self._tokenizer.eos_token_id
        self.padding = self.end

    def ids(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def name(self, token: int) -> str:
        return str(self._tokenizer.convert_ids_to_tokens(token))

    def context(self, ids: Tensor) -> Tensor:
        return self.transformer(input_ids=ids).last_hidden_state

    def load(self, weights: dict[str, Tensor]) -> list[str]:
        """Take the weights ``transformer.text_model.…``, and return the names of the missing
        ones."""
        own = self.transformer.state_dict()
        prefix = "transformer."
        if not any(name.startswith("text_model.") for name in own):
            prefix += "text_model."  # as of transformers 5 the text model is no part of another module
        found = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
        # Positions are counted, not learned; old checkpoints and old transformers hold them,
        # others do not.
        found = {name: value for name, value in found.items() if not name.endswith("position_ids")}
        return [n for n in self.transformer.load_state_dict(found, strict=False)[0] if not n.endswith("position_ids")]


class OpenClip(nn.Module):
    """OpenCLIP's text tower, by open_clip: ``FrozenOpenCLIPEmbedder`` of Stable Diffusion 2."""

    def __init__(self, arch: str, layer: str):
        """``layer``, "last" or "penultimate", is the transformer layer whose output makes the
        context.

        Raises :class:`Unsupported` if open_clip is not installed or does not know ``arch``.
        """
        super().__init__()
        try:
            import open_clip
            from open_clip.tokenizer import SimpleTokenizer
            from open_clip.transformer import TextTransformer
        except ImportError as error:
            raise Unsupported(
                f"the text encoder {arch} needs the package open_clip_torch: pip install open_clip_torch"
            ) from error
        config = open_clip.get_model_config(arch)
        if config is None:
            raise Unsupported(f"open_clip knows no text encoder {arch!r}")
        text = config["text_cfg"]
        sizes = {name: text[name] for name in ("context_length", "vocab_size", "width", "heads", "layers")}
        self.model = TextTransformer(**sizes, output_dim=config["embed_dim"])
        self._tokenizer = SimpleTokenizer()
        self._skipped = {"last": 0, "penultimate": 1}[layer]
        self.start, self.end = (self._tokenizer.encoder[name] for name in ("<start_of_text>", "<end_of_text>"))
        self.padding = 0

    def ids(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text))

    def name(self, token: int) -> str:
        return str(self._tokenizer.decoder[token])

    def context(self, ids: Tensor) -> Tensor:
        tower = self.model
        x = tower.token_embedding(ids) + tower.positional_embedding
        blocks = tower.transformer.resblocks
        # Older releases have the tokens first, the batch second.
        batch_first = getattr(tower.transformer, "batch_first", False)
        x = x if batch_first else x.transpose(0, 1)
        for block in blocks[: len(blocks) - self._skipped]:
            x = block(x, attn_mask=tower.attn_mask)
        return tower.ln_final(x if batch_first else x.transpose(0, 1))

    def load(self, weights: dict[str, Tensor]) -> list[str]:
        """Take the weights ``model.…``, and return the names of the missing ones."""
        found = {name.removeprefix("model."): value for name, value in weights.items() if name.startswith("model.")}
        missing = self.model.load_state_dict(
            {name: value for name, value in found.items() if name in self.model.state_dict()}, strict=False
        )[0]
        return [name for name in missing if name not in ("attn_mask", "text_projection")]
