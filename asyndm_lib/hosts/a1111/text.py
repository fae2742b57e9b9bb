"""The WebUI's prompts, as its models read them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from modules import sd_hijack_open_clip

from ...prompt.token_search import Token
from ..common import text
from .models import check_model
from .tiled_diffusion import regions


def tokenizer(sd_model: Any) -> Callable[[str], list[Token]]:
    """The tokenization of ``sd_model``. Raises :class:`StopIteration` if it has no encoder yet."""
    encoder = text.text_encoder(sd_model)
    return text.tokenizer(encoder, _vocabulary(encoder))


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
