"""The rows of a host that sends its batch through the model in slices, one after the other.

Other extensions may evaluate the model too, in the host's callbacks or after its own calls, with
batches of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from ...models.family import Row


class RowSlices:
    """Which rows each call of the model holds.

    The host's own calls are known by their order, somebody else's by what they hold. ``rows`` are
    those of the host's whole batch. ``retold`` is whether another extension has changed the noise
    levels that the model is told.
    """

    def __init__(self, rows: Sequence[Row]):
        self._rows = self._now = rows
        self._at, self._others = 0, False
        self.retold = False
        self._known: list[tuple[Tensor, Sequence[Row]]] = []

    def begin(self) -> None:
        """A new evaluation, whose first call holds the first rows."""
        self._now, self._at, self.retold = self._rows, 0, False
        self._known.clear()

    def reorder(self, x: Tensor, text: Tensor, before: Tensor) -> None:
        """Somebody may have put the host's batch in another order, for the present evaluation.

        ``x`` is the batch now. ``text`` ``[m, L, C]`` are its conditional rows' prompts now,
        ``before`` as the host had them. Nothing is known of a batch that is changed otherwise.
        """
        if len(x) != len(self._rows) or len(text) != len(before):
            return
        images = 1 + max(image for image, _ in self._rows)
        own = x[-images:]  # the unconditional rows, image by image
        left, order = list(range(len(before))), []
        for n in range(len(before)):
            wanted = sorted(left, key=lambda m, n=n: m != n)  # its own row first
            row = next((m for m in wanted if same(text[n], before[m]) and same(x[n], own[self._rows[m][0]])), None)
            if row is None:
                return
            left.remove(row)
            order.append(self._rows[row])
        self._now = [*order, *self._rows[len(order) :]]
        self._known = [(x, self._now)]

    @contextmanager
    def others(self, x: Tensor | None = None) -> Iterator[None]:
        """Inside the ``with`` every call is somebody else's.

        ``x`` is the host's whole batch, where it is known.
        """
        before, self._others = self._others, True
        if x is not None:
            self._known.append((x, self._now))
        try:
            yield
        finally:
            self._others = before

    def of(self, x: Tensor) -> Sequence[Row] | None:
        """The rows of a call with ``x [n, C, H, W]``.

        Rows of somebody else's call are unconditional, since nobody may read token maps there. The
        result is None if its images cannot be told.
        """
        start, end = self._at, self._at + len(x)
        if self._others or end > len(self._now):
            images = self._images(x)
            return None if images is None else [(image, None) for image in images]
        self._at = end
        self._known.append((x, self._now[start:end]))
        return self._now[start:end]

    def _images(self, x: Tensor) -> list[int] | None:
        """The image of each row of ``x``; None if they cannot be told."""
        order = [image for image, _ in self._now]
        known = [(batch, [image for image, _ in rows]) for batch, rows in self._known]
        return images_of(x, known, order, [*range(1 + max(order))])


def images_of(x: Tensor, known: Iterable[tuple[Tensor, Sequence[int]]], *orders: list[int]) -> list[int] | None:
    """The image of each row of somebody's ``x``; None if they cannot be told.

    ``known`` are batches of the host, with the image of each row. Rows that are in none of them
    have been changed: they are in the host's order, of which ``orders`` are the possible ones.
    """
    if max(orders[0]) == 0:
        return [0] * len(x)
    rows = [(own, image) for batch, images in known for own, image in zip(batch, images, strict=False)]
    found = [next((image for own, image in rows if same(one, own)), None) for one in x]
    if None not in found:
        return [image for image in found if image is not None]
    return next((order for order in orders if len(order) == len(x)), None)


def same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors hold the same."""
    return one.shape == other.shape and torch.equal(one, other.to(one))
