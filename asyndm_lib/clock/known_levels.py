"""The noise levels of all evaluations of a descent, where its clock has them in a closed form."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import dropwhile, pairwise

import torch
from torch import Tensor

from .clocks import CountingClock

Levels = tuple[Tensor, Tensor]
"""Sigmas ``[L]``, and their timesteps ``[L]``."""

Level = Callable[[Tensor, Tensor], Tensor]
"""An inner noise level between an evaluation's and the next one's; holds element by element."""


class KnownLevels:
    """All levels that the evaluations of a descent on a :class:`clocks.CountingClock` can hold.

    They are made for all steps at once: in each step it would take as many operations.
    """

    def __init__(self, evaluations: Sequence[Levels], timestep: Callable[[Tensor], Tensor]):
        """``evaluations`` are the levels of each but the inner ones.

        ``timestep`` gives the timesteps of sigmas of any shape.
        """
        self._evaluations, self._timestep = evaluations, timestep
        self._level: Level | None = None
        self._inner: list[Levels] = []

    def at(self, i: int) -> Levels:
        """The levels of evaluation ``i``."""
        return self._evaluations[i]

    def between(self, i: int, level: Level) -> Levels | None:
        """The levels at ``level`` between the evaluations ``i`` and ``i + 1``.

        They are those of the pairs of :meth:`clocks.CountingClock.known_pairs`. The result is None
        for another ``level`` than the last time: all steps are made only of one that comes again.
        """
        if level is not self._level:
            self._level, self._inner = level, []
            return None
        if not self._inner:
            neighbours = pairwise(sigmas for sigmas, _ in self._evaluations)
            pairs = [CountingClock.known_pairs(now, to) for now, to in neighbours]
            sigmas = level(*(torch.cat(side) for side in zip(*pairs, strict=True)))
            self._inner = split(sigmas, self._timestep(sigmas), [len(own) for own, _ in pairs])
        return self._inner[i]

    def after(self, i: int, timesteps: Tensor) -> Iterator[Tensor]:
        """The timesteps of the evaluations after that of step ``i`` at ``timesteps``, where known.
        """
        steps = range(i, len(self._evaluations))
        coming = (t for j in steps for _, t in (self._evaluations[j], *self._inner[j : j + 1]))
        later = dropwhile(lambda t: t is not timesteps, coming)
        next(later, None)
        return later


def split(sigmas: Tensor, timesteps: Tensor, sizes: list[int]) -> list[Levels]:
    """The levels of several evaluations, of which each has its number of ``sizes``."""
    return list(zip(sigmas.split(sizes), timesteps.split(sizes), strict=True))
