"""Forge's prompts, as its models read them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...prompt.token_search import Token
from ..common import text
from ..forge_family.models import check_model


def tokenizer(sd_model: Any) -> Callable[[str], list[Token]]:
    """The tokenization of ``sd_model``."""
    # SD 1 and 2 have one, SDXL two that cut a text in the same way, its refiner the second of them.
    names = ("text_processing_engine", "text_processing_engine_l", "text_processing_engine_g")
    engine = next(getattr(sd_model, name) for name in names if hasattr(sd_model, name))
    return text.tokenizer(engine, engine.tokenizer.get_vocab())


def is_loaded(sd_model: Any) -> bool:
    """Whether ``sd_model`` is a model and not what stands for one before the first picture."""
    return getattr(sd_model, "forge_objects", None) is not None


READER = text.Reader(tokenizer, check_model, is_loaded, "make a picture")
