"""Kinds of models, one file each, behind the interface of :mod:`family`."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from torch import nn

from . import unet
from .family import Family

# Found here and not at the first use: a WebUI has the extension on its path only while it loads it.
_MODULES = [import_module(f"{__name__}.{found.name}") for found in iter_modules(__path__)]
FAMILIES: tuple[Family, ...] = tuple(module.FAMILY for module in _MODULES if hasattr(module, "FAMILY"))
"""Every ``FAMILY`` of a file in this folder."""


def find(model: nn.Module) -> Family | None:
    """The family of ``model``; None if no family knows it."""
    return next((family for family in FAMILIES if family.matches(model)), None)


def of(model: nn.Module) -> Family:
    """The family of ``model``, whose layers the method can reach.

    Raises :class:`errors.Unsupported`, which says what is in the way.
    """
    family = find(model) or unet.FAMILY  # whose check says what the model lacks
    family.check(model)
    return family
