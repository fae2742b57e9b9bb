"""The noise levels of all cells on the way down one descent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from copy import copy
from itertools import accumulate

import torch
from torch import Tensor

from ..clock.cells import Cells, sent
from ..clock.clocks import Clock, CountingClock, Mask
from ..clock.known_levels import KnownLevels, split
from ..clock.sigma_map import SigmaMap
from .host import Descent


class Walk:
    """A clock on its way down a descent, and the sigma map of each evaluation.

    It knows no model and no picture: masks go in, sigma maps come out. ``i`` is the present
    evaluation and ``now`` its sigma map.
    """

    def __init__(self, descent: Descent, clock: Clock, cells: Cells, dtype: torch.dtype):
        """``clock`` stands at the first evaluation. ``dtype`` is that of the sigmas on the device.
        """
        self.descent, self.clock, self._cells, self._dtype = descent, clock, cells, dtype
        self._known = self._known_levels(clock) if isinstance(clock, CountingClock) else None
        self.i = 0
        self.now = self._sigma_map(0, clock)
        self._next: SigmaMap | None = None
        self._mask: Mask | None = None

    def begin(self, i: int) -> SigmaMap:
        """The sigma map of evaluation ``i``, which becomes the present one."""
        self.i = i
        if self._next is not None:
            self.now = self._next
        return self.now

    @property
    def last(self) -> bool:
        """Whether all cells step to the end of the descent from here."""
        return self.i == self.descent.schedule.evaluations - 1

    @property
    def lagging(self) -> Tensor:
        """Pixels that are off the host's own clock, bool ``[B, 1, H, W]``, as the latents have it.
        """
        return self._cells.latents(self.clock.touched)

    @property
    def furthest(self) -> Tensor:
        """How many steps the cell of each image lags that lags furthest, ``[B]``."""
        return self.clock.furthest

    def advance(self, mask: Mask) -> SigmaMap:
        """Move the clock; returns the sigma map of the next evaluation."""
        self._mask = mask
        self.clock.advance(mask)
        self._next = self._sigma_map(self.i + 1, self.clock)
        return self._next

    def end(self) -> SigmaMap:
        """The noise level that all cells step to from the last evaluation."""
        final = self.descent.scalars[-1]
        index = torch.zeros(self._cells.shape, dtype=torch.int64, device=self._cells.device)
        reached = self._cells.latents(index + self.i + 1) if self.clock.uneven else None
        return self._map(final, self._own([final]), index, progress=reached)

    def glance(self) -> SigmaMap | None:
        """After :meth:`advance`, the evaluation after the next if the mask stays; None if there is
        none.
        """
        if self.i + 2 >= self.descent.schedule.evaluations or self._mask is None:
            return None
        ahead = copy(self.clock)  # an advance replaces what a clock holds
        ahead.advance(self._mask)
        return self._sigma_map(self.i + 2, ahead)

    def between(
        self, level: Callable[[Tensor, Tensor], Tensor], now: SigmaMap, to: SigmaMap
    ) -> SigmaMap:
        """``level(now, to)`` of every cell, where ``level`` holds element by element."""
        scalar = level(now.scalar, to.scalar)
        if len(to.levels) == 1:
            return self._map(scalar, level(now.levels, to.levels.expand_as(now.levels)), now.index)
        if self._known is not None and now is self.now and to is self._next:
            known = self._known.between(self.i, level)
            if known is not None:
                sigmas, timesteps = known
                return self._map(scalar, sigmas, CountingClock.pair(now.index, to.index), timesteps)
        own, others, index = self.clock.pairs((now.levels, now.index), (to.levels, to.index))
        return self._map(scalar, level(own, others), index)

    def timesteps(self, sigmas: Tensor) -> Tensor:
        """What the model is told of cells at ``sigmas`` (any shape)."""
        return self.descent.schedule.timestep(sigmas)

    def coming(self, timesteps: Tensor) -> Iterable[Tensor]:
        """The timesteps of the evaluations after the one at ``timesteps``, as far as they are
        known.
        """
        return () if self._known is None else self._known.after(self.i, timesteps)

    def _known_levels(self, clock: CountingClock) -> KnownLevels:
        schedule, device = self.descent.schedule, self._cells.device
        progress = clock.levels([clock.step + i for i in range(schedule.evaluations)])
        sizes = [len(levels) for levels in progress]
        sigmas, timesteps = self._levels(torch.cat(progress))
        firsts = torch.tensor([0, *accumulate(sizes[:-1])], device=device)
        sigmas[firsts] = self._own(self.descent.scalars[: schedule.evaluations])
        return KnownLevels(
            split(sigmas, timesteps, sizes), lambda sigmas: sent(schedule.timestep(sigmas), device)
        )

    def _sigma_map(self, i: int, clock: Clock) -> SigmaMap:
        if self._known is not None and isinstance(clock, CountingClock):
            (sigmas, timesteps), index = self._known.at(i), clock.index
        else:
            progress = clock.progress
            (sigmas, timesteps), index = self._levels(progress.levels), progress.index
            sigmas[:1] = self._own(self.descent.scalars[i : i + 1])
        reached = self._cells.latents(clock.everywhere) if clock.uneven else None
        return self._map(self.descent.scalars[i], sigmas, index, timesteps, reached)

    def _levels(self, progress: Tensor) -> tuple[Tensor, Tensor]:
        """The sigmas ``[L]`` at ``progress [L]``, and their timesteps."""
        schedule, device = self.descent.schedule, self._cells.device
        sigmas = schedule.sigma(progress)
        return sent(sigmas, device, self._dtype), sent(schedule.timestep(sigmas), device)

    def _own(self, scalars: Sequence[Tensor]) -> Tensor:
        """The host's own sigmas as levels, to the bit."""
        return torch.stack([sent(scalar, self._cells.device, self._dtype) for scalar in scalars])

    def _map(
        self,
        scalar: Tensor,
        levels: Tensor,
        index: Tensor,
        timesteps: Tensor | None = None,
        progress: Tensor | None = None,
    ) -> SigmaMap:
        return SigmaMap(scalar, levels, index, timesteps, self._cells, progress)
