"""Forge Neo's prompts, where they are not read as Forge's."""

from __future__ import annotations

from collections.abc import Sequence

from modules import scripts

from ..common.text import TypedPrompt
from ..forge import text


def typed_prompt(prompt: str, steps: int, styles: Sequence[str]) -> TypedPrompt:
    """As Forge's; Neo takes comments out of a prompt only where a picture is made."""
    return text.typed_prompt(prompt, steps, styles, _without_comments)


def _without_comments(prompt: str) -> str:
    modules = (data.module for data in scripts.scripts_data)
    own = next((module.strip_comments for module in modules if hasattr(module, "strip_comments")), str)
    return own(prompt)
