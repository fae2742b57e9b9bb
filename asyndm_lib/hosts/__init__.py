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
    return import_module(_adapter(), __name__)


def _adapter() -> str:
    # Forge and its relatives keep A1111's module names, but not what is behind them.
    if find_spec("modules_forge") is None:
        return ".a1111"
    if find_spec("backend") is None:
        # ComfyUI's engine. Only reForge has a k-diffusion of its own beside that engine's; Forge Classic has not.
        return ".unknown" if find_spec("k_diff") is None else ".reforge"
    neo = import_module("modules_forge.forge_version").version == "neo"
    return ".neo" if neo else ".forge"
