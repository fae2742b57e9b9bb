"""Noise levels of every pixel, on their way from the schedule through the sampler to the UNet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor


@dataclass(frozen=True)
class PixelMap:
    """A quantity of every pixel beside the host's own value of it.

    ``scalar``: the host's, which a pixel on the synchronous clock has; any shape that broadcasts.
    ``map``: ``[B, 1, H, W]``.
    """

    scalar: Tensor
    map: Tensor


@dataclass(frozen=True)
class SigmaMap:
    """The sigma of every pixel, as a short table and an index into it.

    ``scalar``: the host's own sigma at this point, 0-d, untouched. ``levels``: ``[L]`` the distinct
    sigmas, the first one being ``scalar``, the synchronous clock's. ``index``: int64 ``[B, 1, H, W]`` into them.
    ``timesteps``: ``[L]`` of ``levels``, where already known.
    """

    scalar: Tensor
    levels: Tensor
    index: Tensor
    timesteps: Tensor | None = None

    @cached_property
    def map(self) -> Tensor:
        """Sigma of every pixel, ``[B, 1, H, W]``."""
        return self.levels[self.index]

    def apply(self, fn: Callable[[Tensor], Tensor]) -> SigmaMap:
        """Another noise level of every pixel, ``fn`` of this one; ``fn`` holds element by element."""
        return SigmaMap(fn(self.scalar), fn(self.levels), self.index)
