"""What a run did, in figures for a person: how much of each picture lagged, and how far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..masks.choice import Chosen
from ..masks.source import Words


@dataclass(frozen=True)
class Slowed:
    """What lagged in one picture.

    ``words``: its targets; None where no words say what lags. ``share``: the part of the picture
    that was related, the mean over the advances that knew where. ``lag``: how many steps the cell
    that lagged furthest was behind the host's clock.
    """

    words: Words | None
    share: float
    lag: float


@dataclass(frozen=True)
class Outcome:
    """What a run did to the pictures of a batch.

    ``steps``: of its pass. ``differing``: the steps in which cells could be at several noise
    levels. ``chosen``: the words that became targets where none were named. ``joined``: how a mask
    by hand goes with the words, of ``settings.WITH_WORDS``; None without such a mask. ``stopped``:
    whether it did not come to its end.
    """

    pictures: Sequence[Slowed]
    steps: int
    differing: int
    chosen: Chosen
    joined: str | None = None
    stopped: bool = False


class Tally:
    """Adds up what lags, advance by advance. Nothing waits for the device before the end."""

    def __init__(self) -> None:
        self._related: list[Tensor] = []
        self._furthest: list[Tensor] = []

    def add(self, related: Tensor, furthest: Tensor, *, known: bool) -> None:
        """One advance: the ``related`` cells, bool ``[B, 1, h, w]``, and the largest lag ``[B]``
        after it.

        ``known``: whether a map or a person says what is related.
        """
        if known:
            self._related.append(related)
        self._furthest.append(furthest)

    @property
    def advances(self) -> int:
        """How many advances there were so far."""
        return len(self._furthest)

    def slowed(self, words: Sequence[Words | None]) -> list[Slowed]:
        """What lagged so far in each picture, whose targets are ``words``. Waits for the device."""
        shares = lags = [0.0] * len(words)
        if self._related:
            shares = torch.stack(self._related).float().mean(dim=(0, 2, 3, 4)).tolist()
        if self._furthest:
            lags = torch.stack(self._furthest).amax(dim=0).tolist()
        return [Slowed(*one) for one in zip(words, shares, lags, strict=True)]
