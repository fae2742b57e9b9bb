"""The models of Forge that can run on sigma maps."""

from __future__ import annotations

from functools import partial

from ...models import chroma, flux, sd3, unet
from ..forge_family import models

FAMILIES = [kind.FAMILY for kind in (unet, flux, chroma, sd3)]

check_model = partial(models.check_model, families=FAMILIES)
"""Raises :class:`errors.Unsupported` for a model of none of ``FAMILIES``, or whose layers the
method cannot reach."""
