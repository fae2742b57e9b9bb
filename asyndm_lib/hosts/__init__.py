"""One module per program that makes pictures.

A WebUI's adapter has five functions: ``check`` (can the coming sampling call run on sigma maps),
``prompt_targets`` (the target words in its prompts), ``attach`` (have it run so), ``detach``, and
``typed_prompt`` (how a prompt would be read).
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType


def webui() -> ModuleType:
    """The adapter of the WebUI that we are loaded into."""
    # Forge and its relatives keep A1111's module names, but not what is behind them.
    forge = find_spec("modules_forge") is not None
    return import_module(".forge" if forge else ".a1111", __name__)
