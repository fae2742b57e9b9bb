"""The rows of a host that sends its batch through the model in slices, one after the other."""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import Unsupported
from ...models.family import Row


class RowSlices:
    """Which rows each call of the model holds, by their order.

    ``rows`` are those of the whole batch.
    """

    def __init__(self, rows: Sequence[Row]):
        self._rows, self._at = rows, 0

    def begin(self) -> None:
        """A new evaluation, whose first call holds the first rows."""
        self._at = 0

    def next(self, count: int) -> Sequence[Row]:
        """The next ``count`` rows. Raises :class:`Unsupported` if the batch has not so many."""
        start, self._at = self._at, self._at + count
        if self._at > len(self._rows):
            raise Unsupported(
                f"the model was called with {self._at} rows where the prompts make {len(self._rows)}: "
                "another extension changes the batch; switch it or AsynDM off"
            )
        return self._rows[start : self._at]
