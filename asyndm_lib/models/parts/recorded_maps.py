"""The token maps of a transformer's rows, as they are read and given back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from torch import Tensor

from ..family import Recorded, Row, Size, Weights
from .own_pass import OwnPass


class RecordedMaps:
    """What all :class:`family.TokenMaps` of transformers share.

    In a call that is recorded ``_weights(context, device)`` gives ``[rows, context, T]``, and
    ``_at`` are the rows that are read.
    """

    def __init__(self, own_pass: OwnPass, size: Size):
        self.size, self._own_pass, self._attached = size, own_pass, ExitStack()
        self._cells = size[0] * size[1]
        self._at: slice | list[int] = []
        self._weights: Callable[[int, torch.device], Tensor] | None = None
        self._records: list[tuple[list[Row], list[Tensor]]] = []
        self._known: tuple[list, list[Tensor], Tensor] | None = None

    def attach(self) -> None:
        """Put the hooks on the model."""
        self._attached.callback(self._own_pass.detach)
        self._own_pass.attach()

    def detach(self) -> None:
        """Take the hooks off the model, and forget what was recorded."""
        self._attached.close()
        self._end()
        self._records.clear()
        self._known = None

    @contextmanager
    def record(self, rows: Sequence[Row | None], weights: Weights) -> Iterator[None]:
        """Read the rows that ``rows`` names in one call of the model."""
        at = [n for n, row in enumerate(rows) if row is not None]
        if at:
            named = [row for row in rows if row is not None]
            # A run of rows is taken as a view; the hosts put the conditional ones together.
            self._at = slice(at[0], at[-1] + 1) if at[-1] - at[0] == len(at) - 1 else at
            self._weights = partial(self._weights_of, named, weights)
            self._records.append((named, []))
        try:
            yield
        finally:
            self._end()

    def take(self) -> Recorded:
        """Everything recorded since the last time: means over the layers."""
        seen = [(rows, maps) for rows, maps in self._records if maps]
        self._records = []
        if not seen:
            return Recorded([], torch.empty(0, 0, *self.size))
        means = [sum(maps[1:], start=maps[0]) / len(maps) for _, maps in seen]
        every = torch.cat(means).transpose(1, 2).unflatten(-1, self.size)
        return Recorded([row for rows, _ in seen for row in rows], every)

    def _add(self, map: Tensor) -> None:
        """Take in a layer's map ``[rows, cells, T]``."""
        self._records[-1][1].append(map)

    def _end(self) -> None:
        self._weights = None

    def _weights_of(
        self, rows: Sequence[Row], weights: Weights, context: int, device: torch.device
    ) -> Tensor:
        """``[rows, context, T]``; they seldom change from step to step."""
        own = [weights(row, context) for row in rows]
        key = [*map(id, own), device]
        if self._known is None or key != self._known[0]:
            self._known = key, own, torch.stack(own).to(device)
        return self._known[2]
