"""What the method's masks may be replaced with, to see what they are worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..clock.clocks import Relation
from ..masks.regions import TargetRegions
from ..models.parts.resampling import resize
from ..run.run import Run

BLOB = 2.0
"""Spread of a random mask's blobs, in cells of the token maps."""


@dataclass(frozen=True)
class Control:
    """A change to the masks.

    ``mask``: "own"; "inverted", what is not related lags; "random", as many pixels elsewhere, in blobs that stay where
    they are. ``first``: whether all lags before the first map exists, as the paper has it. ``start``, ``stop``: the
    share of the steps from which and until which anything lags. ``smooth``: whether token maps are smoothed, by a 3×3
    binomial, before the threshold.
    """

    mask: str = "own"
    first: bool = True
    start: float = 0.0
    stop: float = 1.0
    smooth: bool = False


class ControlledRun(Run):
    """A run whose masks follow a :class:`Control`."""

    def __init__(self, control: Control | None, *arguments: Any):
        """``arguments``: a :class:`Run`'s."""
        super().__init__(*arguments)
        if self._targets is not None and control is not None:
            self._regions = ControlledRegions(
                control, self._targets, self.settings, self.host.unet, self._shape, self._device
            )


class ControlledRegions(TargetRegions):
    """Regions of target words, changed by a :class:`Control`."""

    def __init__(self, control: Control, *arguments: Any):
        super().__init__(*arguments)
        self._control = control
        self._order: Tensor | None = None

    def begin(self, moves: Sequence[bool], step: int) -> None:
        super().begin(moves, step)
        self._steps = len(moves)
        if not self._control.first:
            self._before = self._nothing()

    def after(self, i: int) -> Relation:
        relation = super().after(i)
        inside = self._control.start * self._steps <= i < self._control.stop * self._steps
        return relation if inside else self._nothing()

    def _relate(self, maps: Tensor, present: Tensor) -> Relation:
        if self._control.smooth:
            maps = smoothed(maps)
        relation = super()._relate(maps, present)
        if self._control.mask == "own":
            return relation
        if self._control.mask == "inverted":
            related = ~relation.related
        else:
            related = self._elsewhere(relation.related, maps.shape[-2:])
        strongest = relation.concavity.amax(dim=(1, 2, 3), keepdim=True)
        return Relation(related, strongest * related)

    def _elsewhere(self, related: Tensor, size: Sequence[int]) -> Tensor:
        """Of every picture as many cells as are related, the first in its own random order."""
        cells = resize(related, *size).flatten(1)
        if self._order is None:
            generator = torch.Generator().manual_seed(0)
            field = _blurred(torch.randn(len(cells), 1, *size, generator=generator), BLOB)
            self._order = field.flatten(1).argsort(dim=1).argsort(dim=1).to(related.device)
        chosen = self._order < cells.sum(dim=1, keepdim=True)
        return resize(chosen.view(-1, 1, *size), *related.shape[-2:])


def smoothed(maps: Tensor) -> Tensor:
    """``maps [B, T, h, w]`` by a 3×3 binomial."""
    line = maps.new_tensor([0.25, 0.5, 0.25])
    kernel = (line[:, None] * line).expand(maps.shape[1], 1, 3, 3)
    return F.conv2d(F.pad(maps, (1, 1, 1, 1), mode="replicate"), kernel, groups=maps.shape[1])


def _blurred(field: Tensor, spread: float) -> Tensor:
    reach = min(int(3 * spread), *(side - 1 for side in field.shape[-2:]))
    axis = torch.arange(-reach, reach + 1, dtype=field.dtype)
    line = torch.exp(-(axis**2) / (2 * spread**2))
    field = F.conv2d(F.pad(field, (reach, reach, 0, 0), mode="reflect"), line.view(1, 1, 1, -1))
    return F.conv2d(F.pad(field, (0, 0, reach, reach), mode="reflect"), line.view(1, 1, -1, 1))
