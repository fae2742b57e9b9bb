"""Clocks: the progress of every cell through the host's schedule (docs/METHOD.md, section 1).

A schedule of ``N = M + 1`` model evaluations gives every cell a progress ``u`` from 0 (first
evaluation) to ``M`` (last one). Cells that no target claims advance linearly and so stay on the
host's own clock, ``u = i`` at evaluation ``i``. Related cells follow a concave curve of concavity
``k`` through their present state and the common end, and lag behind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .cells import sent
from .curves import RULES, linear


@dataclass(frozen=True)
class Progress:
    """The progress of every cell, as a short table and an index into it.

    ``levels`` are the distinct values of ``u``, float64 ``[L]`` on the CPU; the first is the
    synchronous clock's. ``index`` is int64 ``[B, 1, h, w]`` on the run's device.
    """

    levels: Tensor
    index: Tensor


UNEVEN = 13
"""How many times as much as in even steps a difference of past predictions may count.

A multistep formula extrapolates by such differences. Let ``h`` be a cell's advance and ``h1``,
``h2`` those before it, the newest first. What is wrong with a prediction comes into the first
difference ``h/h1`` times, and into the second ``2·h²/((h1 + h2)·min(h1, h2))`` times, as much as in
even steps. That has no bound where a curve all but holds a cell and then lets it go.

Below the limit are, whatever the masks, quadratic curves with ``k <= 0.7`` and the paper's own
parabola (12.5), exponential ones with any ``k``, and piecewise linear ones with ``k <= 0.5`` (9);
for formulas of two predictions also piecewise linear ones with ``k <= 0.85``. On a toy with an
exact solution (tests/toy_errors.py) what is wrong with a model moves a pixel within the limit no
more than three times as far as it does on the host's clock in half as many steps.
"""

Table = tuple[Tensor, Tensor]
"""The levels ``[L]`` of a quantity, and an index into them, int64 ``[B, 1, h, w]``."""


@dataclass(frozen=True)
class Mask:
    """Which cells are prompt-related during one advance, and how strongly they lag.

    ``related`` is bool ``[B, 1, h, w]``. ``concavity`` is float ``[B, 1, h, w]``, read where
    related.
    """

    related: Tensor
    concavity: Tensor


class CountingClock:
    """The quadratic clock of a single concavity, in closed form.

    Before evaluation ``i`` a cell that was related in ``c`` of the steps so far is at
    ``u = i - k·c·(1 - i/M)``. The state is an integer count, the table of its values is known in
    advance, and no advance asks the device for anything.

    ``index`` is the count, int64 ``[B, 1, h, w]``. ``touched`` is bool: cells that have left the
    synchronous clock.
    """

    def __init__(self, advances: int, shape: Sequence[int], concavity: float, device: torch.device | str = "cpu"):
        self.advances, self.step, self._k = advances, 0, concavity
        self.index = torch.zeros(tuple(shape), dtype=torch.int64, device=device)
        self.touched = self.index > 0

    def levels(self, evaluations: Sequence[int]) -> list[Tensor]:
        """All progress values that each of ``evaluations`` can hold, made at once.

        Evaluation ``i`` has float64 ``[i + 1]``; one alone where nothing lags.
        """
        counts = [i + 1 if self._k > 0 else 1 for i in evaluations]
        count = torch.cat([torch.arange(n, dtype=torch.float64) for n in counts])
        i = torch.tensor(evaluations, dtype=torch.float64).repeat_interleave(torch.tensor(counts))
        return list((i - self._k * count * (1 - i / max(self.advances, 1))).split(counts))

    @property
    def progress(self) -> Progress:
        """The present progress."""
        return Progress(self.levels([self.step])[0], self.index)

    @property
    def uneven(self) -> bool:
        """Whether advances can be so uneven that they reach :data:`UNEVEN`.

        No advance is shorter than ``1 - k``, and none soon after such a one is longer than about 1.
        """
        return self._k > 1 - UNEVEN**-0.5

    @property
    def furthest(self) -> Tensor:
        """How many steps the cell of each image lags that lags furthest, ``[B]``."""
        return self.index.amax(dim=(1, 2, 3)) * (self._k * (1 - self.step / max(self.advances, 1)))

    @property
    def everywhere(self) -> Tensor:
        """The present progress of every cell, ``[B, 1, h, w]``."""
        return self.step - self._k * (1 - self.step / max(self.advances, 1)) * self.index

    def pairs(self, now: Table, to: Table) -> tuple[Tensor, Tensor, Tensor]:
        """The pairs of a level at one evaluation and one at the next that cells can hold.

        The result is both sides ``[P]``, and which pair each cell holds.
        """
        (levels, counts), (levels_to, counts_to) = now, to
        return *self.known_pairs(levels, levels_to), self.pair(counts, counts_to)

    @staticmethod
    def known_pairs(levels: Tensor, levels_to: Tensor) -> tuple[Tensor, Tensor]:
        """Both sides of the pairs that cells can hold, ``[P]``."""
        return _twice(levels), _twice(levels_to)[1:-1]

    @staticmethod
    def pair(counts: Tensor, counts_to: Tensor) -> Tensor:
        """The number of the known pair that each cell holds.

        A count grows by one or not at all, so the sum of both tells.
        """
        return counts + counts_to

    def advance(self, mask: Mask) -> None:
        """Move every cell to the next evaluation."""
        if self._k > 0:  # with no concavity every pixel stays on the host's clock, to the bit
            self.index = self.index + mask.related
            self.touched = self.index > 0
        self.step += 1


class StateClock:
    """The clock of any curve and any concavity per cell: it keeps the state, and searches its
    values.

    The state is kept on the CPU, in double precision also where the device has none. Each advance
    fetches one mask from the device. Levels are whole multiples of 2⁻³⁰ of a step, so that rounding
    neither parts equal histories nor carries a cell past the synchronous clock or short of the end.
    """

    _GRAIN = 2.0**30

    def __init__(self, advances: int, shape: Sequence[int], curve: str, device: torch.device | str = "cpu"):
        self.advances, self.step, self._rule = advances, 0, RULES[curve]
        self._device = torch.device(device)
        self._u = torch.zeros(tuple(shape), dtype=torch.float64)
        self._lagging = torch.zeros(tuple(shape), dtype=torch.bool)

    @property
    def touched(self) -> Tensor:
        """Cells that have left the synchronous clock, bool ``[B, 1, h, w]``."""
        return self._lagging.to(self._device)

    @property
    def progress(self) -> Progress:
        """The present progress."""
        # The synchronous clock comes first whether or not a cell is still on it.
        synchronous = self._u.new_tensor([float(self.step)])
        grains = torch.where(self._lagging, (self._u * self._GRAIN).round() / self._GRAIN, -1.0)
        values, index = torch.unique(grains, return_inverse=True)
        lagging = values[values >= 0]
        index = torch.where(self._lagging, index + 1 - (len(values) - len(lagging)), 0)
        return Progress(torch.cat([synchronous, lagging]), index.to(self._device))

    uneven = True

    @property
    def furthest(self) -> Tensor:
        """How many steps the cell of each image lags that lags furthest, ``[B]``."""
        return self.step - self._u.amin(dim=(1, 2, 3))

    @property
    def everywhere(self) -> Tensor:
        """The present progress of every cell, ``[B, 1, h, w]``."""
        return sent(self._u, self._device, torch.float32)

    def pairs(self, now: Table, to: Table) -> tuple[Tensor, Tensor, Tensor]:
        """The pairs of a level at one evaluation and one at the next that cells hold.

        The result is both sides ``[P]``, and which pair each cell holds.
        """
        (levels, index), (levels_to, index_to) = now, to
        held = index.cpu() * len(levels_to) + index_to.cpu()
        distinct = torch.unique(torch.cat([held.new_zeros(1), held.flatten()]))  # the synchronous clock's pair first
        place = torch.searchsorted(distinct, held).to(self._device)
        distinct = distinct.to(self._device)
        return levels[distinct // len(levels_to)], levels_to[distinct % len(levels_to)], place

    def advance(self, mask: Mask) -> None:
        """Move every cell to the next evaluation."""
        r = self.advances - self.step
        related, concavity = mask.related.cpu(), mask.concavity.cpu().double()
        lagging, own = self._rule(self._u, concavity, r, self.advances), linear(self._u, r, self.advances)
        self._u = torch.where(related, lagging, own)
        self.step += 1
        self._lagging = self._lagging | (related & (concavity > 0))


def _twice(levels: Tensor) -> Tensor:
    """Every one of ``levels [L]`` twice in a row."""
    return levels[:, None].expand(-1, 2).flatten()


Clock = CountingClock | StateClock


def make_clock(
    advances: int, shape: Sequence[int], curve: str, concavities: Sequence[float], device: torch.device | str = "cpu"
) -> Clock:
    """A clock for ``advances`` advances between evaluations, over maps of ``shape`` ``[B, 1, h,
    w]``.

    ``concavities`` are all values that a mask of this run can hold.
    """
    if curve == "quadratic" and len(set(concavities)) == 1:
        return CountingClock(advances, shape, concavities[0], device)
    return StateClock(advances, shape, curve, device)
