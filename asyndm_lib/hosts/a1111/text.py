"""The WebUI's prompts, as its models read them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from modules import sd_hijack_open_clip, shared

from ...prompt.token_search import UNREAD, Token
from ...prompt.vocabulary import sentence_text, spaced
from ..common import text
from .models import check_model
from .tiled_diffusion import regions


def tokenizer(sd_model: Any) -> Callable[[str], list[Token]]:
    """The tokenization of ``sd_model``. Raises :class:`StopIteration` if it has no encoder yet."""
    if getattr(sd_model, "is_sd3", False):
        return _sd3(sd_model.cond_stage_model)
    encoder = text.text_encoder(sd_model)
    return text.tokenizer(encoder, _vocabulary(encoder))


def _sd3(encoders: Any) -> Callable[[str], list[Token]]:
    """Stable Diffusion 3's context has as many rows of T5's as of CLIP's, behind them.

    By an option T5's are zeros.
    """
    engine, t5 = encoders.model_lg, encoders.model_t5
    clip = text.tokenizer(engine, _vocabulary(engine))

    def tokenize(line: str) -> list[Token]:
        tokens = clip(line)
        if t5.t5xxl and shared.opts.sd3_enable_t5:
            (chunks,), _ = engine.process_texts([line])
            rows = sum(len(chunk.tokens) for chunk in chunks)
            ids = t5.tokenize_line(line)[0][:-1]  # without the end of the text
            places = [rows + at if at < rows else UNREAD for at in range(len(ids))]
            names = t5.tokenizer.convert_ids_to_tokens(ids)
            tokens += spaced(zip(ids, places, names, strict=True), sentence_text, reading=1)
        return tokens

    return tokenize


def _vocabulary(encoder: Any) -> dict[str, int]:
    """Token → id.

    OpenCLIP's tokenizer (SD 2, XL's refiner) stands in the host's module, CLIP's beside the
    encoder.
    """
    if hasattr(encoder, "tokenizer"):
        return encoder.tokenizer.get_vocab()
    return sd_hijack_open_clip.tokenizer.encoder


READER = text.Reader(
    tokenizer, check_model, lambda sd_model: sd_model is not None, "load a checkpoint", regions=regions
)
