"""Forge Neo's prompts, where they are not read as Forge's."""

from __future__ import annotations

from dataclasses import replace

from modules import scripts

from ..forge import text


def without_comments(prompt: str) -> str:
    """``prompt`` without its comments, which Neo takes out only where a picture is made."""
    modules = (data.module for data in scripts.scripts_data)
    own = next((module.strip_comments for module in modules if hasattr(module, "strip_comments")), str)
    return own(prompt)


READER = replace(text.READER, without_comments=without_comments)
