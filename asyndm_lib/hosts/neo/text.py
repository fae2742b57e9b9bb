"""Forge Neo's prompts, where they are not read as Forge's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from modules import scripts
from modules.shared import opts

from ...prompt.vocabulary import byte_text, sentence_text
from ..forge import text
from ..forge_family import text_engines
from ..forge_family.text_engines import Engine, Read, t5_engine
from .models import check_model

PROMPT_START = "<Prompt Start>"
"""What a prompt holds that brings Lumina's template with it."""


def tokenizer(sd_model: Any) -> Read:
    """The tokenization of ``sd_model``."""
    for name, engine_of in ENGINES.items():
        if hasattr(sd_model, name):
            engine = engine_of(getattr(sd_model, name))
            return lambda line: list(engine.tokens(line))
    return text_engines.tokenizer(sd_model)


def _t5(engine: Any) -> Engine:
    """T5's, or Wan's: the tokenizer of that one ends every segment, and it leaves out the last
    letter of each.
    """
    own = t5_engine(engine)
    return replace(own, after=1, unread_end=-engine.tokens_end) if hasattr(engine, "tokens_end") else own


def _qwen(engine: Any) -> Engine:
    """Qwen's, which puts a template around every segment.

    Qwen-Image and Krea leave out what comes before the prompt.
    """
    before, after = (len(engine.tokenizer([part])["input_ids"][0]) for part in engine.llama_template.split("{}"))
    first = -before if hasattr(engine, "strip_template") else 0
    names = engine.tokenizer.convert_ids_to_tokens
    return Engine(engine.tokenize, names, byte_text, engine.emphasis.name, first, before, after)


def _gemma(engine: Any) -> Engine:
    """Qwen's, which two families have under Gemma's name, or Gemma's: Lumina's option is a text
    before the prompt.
    """
    if hasattr(engine, "llama_template"):
        return _qwen(engine)

    def head(line: str) -> str:
        return "" if PROMPT_START in line else f"{opts.neta_template_positive}\n"

    names = engine.tokenizer.convert_ids_to_tokens
    return Engine(engine.tokenize, names, sentence_text, engine.emphasis.name, first=1, stops=True, head=head)


def _anima(engine: Any) -> Engine:
    """Anima's: its rows are T5's tokens, which look at Qwen's."""
    names = engine.t5_tokenizer.convert_ids_to_tokens
    return Engine(lambda texts: engine.tokenize(texts)[1], names, sentence_text, engine.emphasis.name)


def _ministral(engine: Any) -> Engine:
    """Mistral's, to which brackets are text."""
    names = engine.tokenizer.tokenizer.convert_ids_to_tokens
    return Engine(engine.tokenize, names, byte_text, "None", before=1)


ENGINES: dict[str, Callable[[Any], Engine]] = {
    "text_processing_engine_t5": _t5,
    "text_processing_engine_gemma": _gemma,
    "text_processing_engine_qwen": _qwen,
    "text_processing_engine_anima": _anima,
    "text_processing_engine_ministral": _ministral,
}
"""By the names that the host's models have for them."""


def without_comments(prompt: str) -> str:
    """``prompt`` without its comments, which Neo takes out only where a picture is made."""
    modules = (data.module for data in scripts.scripts_data)
    own = next((module.strip_comments for module in modules if hasattr(module, "strip_comments")), str)
    return own(prompt)


READER = replace(text.READER, tokenizer=tokenizer, check_model=check_model, without_comments=without_comments)
