"""Changes to the method's masks, to see what the masks are worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..clock.cells import Cells
from ..clock.clocks import Mask
from ..masks.source import MaskSource
from ..masks.target_masks import TIMINGS, Rule, Threshold
from ..models.family import Recorded
from ..models.parts.resampling import resize
from ..prompt.prompt_targets import PromptTargets
from ..run.run import masks_of
from ..settings.settings import Settings

BLOB = 2.0
"""Spread of a random mask's blobs, in cells of the token maps."""


@dataclass(frozen=True)
class Control:
    """A change to the masks.

    ``mask`` is "own"; "inverted", where what is not related lags; or "random", where as many cells
    lag elsewhere, in blobs that stay where they are. ``first`` is whether all lags before the
    first map exists, as the paper has it. ``start`` and ``stop`` are the share of the steps from
    which and until which anything lags. ``smooth`` is whether a 3×3 binomial smooths the token
    maps before the threshold.
    """

    mask: str = "own"
    first: bool = True
    start: float = 0.0
    stop: float = 1.0
    smooth: bool = False


def controlled(
    control: Control | None, targets: PromptTargets | None, settings: Settings, cells: Cells
) -> MaskSource:
    """The masks of a run, changed by ``control``."""
    if control is None or targets is None:
        return masks_of(targets, settings, cells)
    rule = ControlledRule(Threshold(targets, settings.concavity, settings.threshold, cells), control)
    masks = TIMINGS[settings.mask_timing](targets, rule, cells)
    return masks if control.start <= 0 and control.stop >= 1 else _Limited(masks, rule, control)


class ControlledRule:
    """A rule whose masks are changed by a control."""

    def __init__(self, rule: Rule, control: Control):
        self._rule, self._control = rule, control
        self._order: Tensor | None = None
        self.concavities, self.threshold = rule.concavities, rule.threshold

    def first(self, present: Tensor) -> Mask:
        """What counts as related before the first map exists."""
        return self._rule.first(present) if self._control.first else self._rule.none()

    def none(self) -> Mask:
        """Nothing related."""
        return self._rule.none()

    def mask(self, maps: Tensor, present: Tensor, reach: Tensor | None = None) -> Mask:
        """The changed mask of token maps ``[B, T, h, w]``."""
        if self._control.smooth:
            maps = smoothed(maps)
        mask = self._rule.mask(maps, present, reach)
        if self._control.mask == "own":
            return mask
        inverted = self._control.mask == "inverted"
        related = ~mask.related if inverted else self._elsewhere(mask.related, maps.shape[-2:])
        strongest = mask.concavity.amax(dim=(1, 2, 3), keepdim=True)
        return Mask(related, strongest * related)

    def _elsewhere(self, related: Tensor, size: Sequence[int]) -> Tensor:
        """Cells of every picture, as many as are related, the first in its own random order."""
        cells = resize(related, *size).flatten(1)
        if self._order is None:
            generator = torch.Generator().manual_seed(0)
            field = _blurred(torch.randn(len(cells), 1, *size, generator=generator), BLOB)
            self._order = field.flatten(1).argsort(dim=1).argsort(dim=1).to(related.device)
        chosen = self._order < cells.sum(dim=1, keepdim=True)
        return resize(chosen.view(-1, 1, *size), *related.shape[-2:])


class _Limited:
    """Masks that lag in a part of the steps only; all else is as ``masks`` has it."""

    def __init__(self, masks: MaskSource, rule: Rule, control: Control):
        self._masks, self._rule, self._control = masks, rule, control

    def __getattr__(self, name: str) -> object:
        return getattr(self._masks, name)

    def begin(self, moves: Sequence[bool], step: int) -> None:
        """A new pass of ``len(moves)`` steps."""
        self._steps = len(moves)
        self._masks.begin(moves, step)

    def after(self, i: int, recorded: Recorded | None, step: int) -> Mask:
        """The mask of step ``i``, or nothing outside the part."""
        mask = self._masks.after(i, recorded, step)
        inside = self._control.start * self._steps <= i < self._control.stop * self._steps
        return mask if inside else self._rule.none()


def smoothed(maps: Tensor) -> Tensor:
    """``maps [B, T, h, w]`` smoothed by a 3×3 binomial."""
    line = maps.new_tensor([0.25, 0.5, 0.25])
    kernel = (line[:, None] * line).expand(maps.shape[1], 1, 3, 3)
    return F.conv2d(F.pad(maps, (1, 1, 1, 1), mode="replicate"), kernel, groups=maps.shape[1])


def _blurred(field: Tensor, spread: float) -> Tensor:
    reach = min(int(3 * spread), *(side - 1 for side in field.shape[-2:]))
    axis = torch.arange(-reach, reach + 1, dtype=field.dtype)
    line = torch.exp(-(axis**2) / (2 * spread**2))
    field = F.conv2d(F.pad(field, (reach, reach, 0, 0), mode="reflect"), line.view(1, 1, 1, -1))
    return F.conv2d(F.pad(field, (0, 0, reach, reach), mode="reflect"), line.view(1, 1, -1, 1))
