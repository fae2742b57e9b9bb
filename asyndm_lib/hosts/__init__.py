"""One package per WebUI, each with its ``adapter``: all that the interface needs of that WebUI.

An adapter is a :class:`common.adapter.Adapter`, or refuses as :mod:`hosts.unknown` does. Nothing
here knows the interface. ``standalone`` makes pictures without a WebUI.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .common.adapter import Adapter


def webui() -> Adapter:
    """The adapter of the WebUI that has loaded us."""
    return import_module(_adapter(), __name__).adapter


def _adapter() -> str:
    # Forge and its relatives keep A1111's module names, but not what is behind them.
    if find_spec("modules_forge") is None:
        return ".a1111"
    if find_spec("backend") is None:
        # ComfyUI's engine. reForge has a k-diffusion of its own beside it; Forge Classic has moved
        # UniPC, and the first Forge has done neither.
        if find_spec("k_diff") is not None:
            return ".reforge"
        return ".classic" if find_spec("modules.uni_pc") is not None else ".unknown"
    neo = import_module("modules_forge.forge_version").version == "neo"
    return ".neo" if neo else ".forge"
