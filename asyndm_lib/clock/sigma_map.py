"""Noise levels of a batch, on their way from the schedule through the sampler to the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from .cells import Cells


@dataclass(frozen=True)
class PixelMap:
    """A quantity of every pixel beside the host's own value of it.

    ``scalar`` is the host's, which a pixel on the synchronous clock has, in any shape that
    broadcasts. ``map`` is ``[B, 1, H, W]``.
    """

    scalar: Tensor
    map: Tensor


@dataclass(frozen=True)
class SigmaMap:
    """The sigma of every cell, as a short table and an index into it.

    ``scalar`` is the host's own sigma at this point, 0-d, untouched. ``levels`` ``[L]`` are the
    distinct sigmas; the first is ``scalar``, the synchronous clock's. ``index`` is int64
    ``[B, 1, h, w]`` into them. ``timesteps`` ``[L]`` are those of ``levels``, where already known.
    ``cells`` says which pixels a cell holds; without it a cell is a pixel. ``progress`` is that of
    every pixel, ``[B, 1, H, W]``, at an evaluation or the end, where advances can be uneven.
    """

    scalar: Tensor
    levels: Tensor
    index: Tensor
    timesteps: Tensor | None = None
    cells: Cells | None = None
    progress: Tensor | None = None

    @cached_property
    def map(self) -> Tensor:
        """The sigma of every pixel, ``[B, 1, H, W]``, as the latents have it: see
        :meth:`cells.Cells.latents`.
        """
        sigmas = self.levels[self.index]
        return sigmas if self.cells is None else self.cells.latents(sigmas)

    def apply(self, fn: Callable[[Tensor], Tensor]) -> SigmaMap:
        """Another noise level of every cell: ``fn`` of this one, element by element."""
        return SigmaMap(fn(self.scalar), fn(self.levels), self.index, cells=self.cells)
