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
    """What the evaluations of a descent on a :class:`clock.CountingClock` can hold, the inner ones among them.

    Made for all steps at once: in each step it would take as many operations.
    """

    def __init__(self, evaluations: Sequence[Levels], timestep: Callable[[Tensor], Tensor]):
        """``evaluations``: the levels of each but the inner ones. ``timestep``: of sigmas of any shape."""
        self._evaluations, self._timestep = evaluations, timestep
        self._level: Level | None = None
        self._inner: list[Levels] = []

    def at(self, i: int) -> Levels:
        """Of evaluation ``i``."""
        return self._evaluations[i]

    def between(self, i: int, level: Level) -> Levels | None:
        """At ``level`` between the evaluations ``i`` and ``i + 1``, of the pairs of :meth:`CountingClock.known_pairs`.

        None for another ``level`` than the last time: only of one that comes again all steps are made.
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
        """The timesteps of the evaluations after that of step ``i`` at ``timesteps``, as far as they are known."""
        steps = range(i, len(self._evaluations))
        coming = (t for j in steps for _, t in (self._evaluations[j], *self._inner[j : j + 1]))
        later = dropwhile(lambda t: t is not timesteps, coming)
        next(later, None)
        return later


def split(sigmas: Tensor, timesteps: Tensor, sizes: list[int]) -> list[Levels]:
    """The levels of several evaluations, of which each has so many."""
    return list(zip(sigmas.split(sizes), timesteps.split(sizes), strict=True))
