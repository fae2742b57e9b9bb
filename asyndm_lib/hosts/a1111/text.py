"""The WebUI's prompts, as its model reads them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from modules import sd_hijack_open_clip, sd_models, shared

from ...errors import Unsupported
from ...prompt.prompt_targets import PromptTargets
from ...prompt.token_search import Token
from ...settings.settings import Settings
from ..common import text
from .models import check_model


def typed_prompt(prompt: str, steps: int, styles: Sequence[str]) -> text.TypedPrompt:
    """A prompt as it would be read if a picture of ``steps`` steps were begun now; only reads.

    Raises :class:`Unsupported` while there is no model to read it, :class:`SettingsError` for one too intricate.
    """
    sd_model = sd_models.model_data.sd_model  # shared.sd_model would load one
    if sd_model is None:
        raise Unsupported("no model is loaded; load a checkpoint and ask again")
    try:
        check_model(sd_model)
        tokenize = tokenizer(sd_model)
    except (AttributeError, StopIteration):
        raise Unsupported("the model is being loaded; ask again in a moment") from None
    return text.typed_prompt(prompt, steps, styles, tokenize)


def prompt_targets(p: Any, settings: Settings) -> PromptTargets:
    """The target words in the prompts of the coming sampling call of ``p`` (a ``StableDiffusionProcessing``)."""
    return text.prompt_targets(p, settings, tokenizer(shared.sd_model))


def tokenizer(sd_model: Any) -> Callable[[str], list[Token]]:
    encoder = text.text_encoder(sd_model.cond_stage_model)
    return text.tokenizer(encoder, _vocabulary(encoder))


def _vocabulary(encoder: Any) -> dict[str, int]:
    """Token → id. OpenCLIP's tokenizer (SD 2, XL's refiner) stands in the host's module, CLIP's beside the encoder."""
    if hasattr(encoder, "tokenizer"):
        return encoder.tokenizer.get_vocab()
    return sd_hijack_open_clip.tokenizer.encoder
