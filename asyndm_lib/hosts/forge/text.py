"""Forge's prompts, as its models read them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from modules import sd_models

from ...errors import Unsupported
from ...prompt.prompt_targets import PromptTargets
from ...prompt.token_search import Token
from ...settings.settings import Settings
from ..common import text
from ..forge_family.models import check_model


def typed_prompt(
    prompt: str, steps: int, styles: Sequence[str], without_comments: Callable[[str], str] = str
) -> text.TypedPrompt:
    """A prompt as it would be read if a picture of ``steps`` steps were begun now; only reads.

    ``without_comments``: see :func:`text.typed_prompt`.
    Raises :class:`Unsupported` while there is no model to read it, :class:`SettingsError` for one too intricate.
    """
    sd_model = sd_models.model_data.sd_model
    if getattr(sd_model, "forge_objects", None) is None:
        raise Unsupported("no model is loaded; make a picture and ask again")
    check_model(sd_model)
    return text.typed_prompt(prompt, steps, styles, tokenizer(sd_model), without_comments)


def prompt_targets(p: Any, settings: Settings) -> PromptTargets:
    """The target words in the prompts of the coming sampling call of ``p`` (a ``StableDiffusionProcessing``)."""
    return text.prompt_targets(p, settings, tokenizer(p.sd_model))


def tokenizer(sd_model: Any) -> Callable[[str], list[Token]]:
    # SD 1 and 2 have one, SDXL two that cut a text in the same way, and its refiner only the second of them.
    names = ("text_processing_engine", "text_processing_engine_l", "text_processing_engine_g")
    engine = next(getattr(sd_model, name) for name in names if hasattr(sd_model, name))
    return text.tokenizer(engine, engine.tokenizer.get_vocab())
