"""Forge's prompts, as its models read them."""

from __future__ import annotations

from typing import Any

from ..common import text
from ..forge_family.text_engines import chunk, tokenizer
from .models import check_model


def is_loaded(sd_model: Any) -> bool:
    """Whether ``sd_model`` is a model and not what stands for one before the first picture."""
    return getattr(sd_model, "forge_objects", None) is not None


READER = text.Reader(tokenizer, check_model, is_loaded, "make a picture", chunk=chunk)
