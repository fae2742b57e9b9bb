"""The models of Forge Neo that can run on sigma maps."""

from __future__ import annotations

from functools import partial

from ...models import anima, chroma, ernie_image, flux, krea, nextdit, qwen_image, unet, wan
from ..forge_family import models

FAMILIES = [kind.FAMILY for kind in (unet, flux, chroma, nextdit, qwen_image, anima, wan, ernie_image, krea)]

check_model = partial(models.check_model, families=FAMILIES)
"""Raises :class:`errors.Unsupported` for a model of none of ``FAMILIES``, or whose layers the
method cannot reach."""
