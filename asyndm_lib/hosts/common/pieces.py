"""The pieces in which another extension gives the model the picture.

Such an extension, a stranger, stands in the place of a method through which the host calls the
model, and calls the original method for every piece.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from types import MethodType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...clock.cells import Box, box_of
from ...errors import TakenApart
from ...models.family import Row
from ...models.parts.patching import replaced
from ...run.model_call import Told

Method = Callable[..., Tensor]


class Piece(NamedTuple):
    """What a call of the model holds.

    ``boxes``: the box of each of ``rows``; None where each is a whole picture.
    """

    rows: Sequence[Row] = ()
    told: Told | None = None
    boxes: Sequence[Box] | None = None


class Region(NamedTuple):
    """A piece that has a prompt of its own.

    ``prompts``: those of the batch's images, as they are encoded. ``typed``: what is typed for it.
    """

    box: Box
    prompts: Sequence[str]
    typed: str


class Pieces:
    """Which rows and boxes each of a stranger's calls of the original method holds.

    It is known by their content: a piece is a part of what the stranger was called with, and the
    pieces of one box come in the order of the rows.
    """

    def __init__(self, regions: Sequence[Region], parts: Sequence[int]):
        """``parts``: how many ``AND`` parts each image's prompt has.

        Those of the regions' prompts are counted on from there, region by region.
        """
        self._regions, self._parts = regions, parts
        self._x: Tensor | None = None
        self._whole, self._text = Piece(), torch.empty(0)
        self._known: dict[tuple, list[Box]] = {}
        self._calls = 0
        self._done: Counter[Box] = Counter()  # rows that have come of each box
        self._foreign: Counter[Box] = Counter()  # those of them that have another prompt than the picture

    @contextmanager
    def of_whole(self, x: Tensor, whole: Piece, cond: Any) -> Iterator[None]:
        """Around one call of the stranger with ``x [N, C, H, W]``, which holds ``whole``.

        ``cond``: the host's conditioning of its rows.
        """
        before = self._x, self._whole, self._text
        self._x, self._whole, self._text = x, whole, encodings(cond)
        self._calls = 0
        self._done.clear()
        self._foreign.clear()
        try:
            yield
        finally:
            self._x, self._whole, self._text = before

    def of(self, x: Tensor, cond: Any) -> Piece:
        """What a call of the original method with ``x [n, C, h, w]`` and ``cond`` holds.

        Outside a call of the stranger it is nothing. Raises :class:`TakenApart` if it cannot be
        told.
        """
        if self._x is None or not self._whole.rows:
            return Piece()
        boxes = self._boxes(x, self._x)
        numbers = self._numbers(boxes, len(self._x))
        rows = [self._whole.rows[number] for number in numbers]
        if not self._same_prompts(rows, numbers, encodings(cond)):
            cut = x.shape != self._x.shape
            rows = [self._of_region(row, box, cut) for row, box in zip(rows, boxes, strict=True)]
        self._done.update(boxes)
        told, outer = self._whole.told, self._whole.boxes
        if outer is not None:
            boxes = [box.within(outer[number]) for number, box in zip(numbers, boxes, strict=True)]
        return Piece(rows, told and replace(told, factor=told.factor[numbers]), boxes)

    def _boxes(self, x: Tensor, whole: Tensor) -> list[Box]:
        """The box of each row of ``x``."""
        if x.shape == whole.shape:
            return [Box(0, 0, *x.shape[-2:])] * len(x)
        key = x.shape, whole.shape, self._calls
        self._calls += 1
        known = self._known.get(key)
        if known is None or not self._hold(x, whole, known):  # a stranger seldom cuts otherwise than before
            known = self._known[key] = _find(x, whole)
            if not self._hold(x, whole, known):
                raise TakenApart
        return known

    def _numbers(self, boxes: Sequence[Box], count: int) -> list[int]:
        """The rows of the whole, of which there are ``count``, that pieces at ``boxes`` are of."""
        done, numbers = self._done.copy(), []
        for box in boxes:
            numbers.append(done[box] % count)
            done[box] += 1
        return numbers

    def _hold(self, x: Tensor, whole: Tensor, boxes: Sequence[Box]) -> bool:
        """Whether the rows of ``x`` are the parts of ``whole`` at ``boxes``."""
        parts = [box.of(whole[n]) for n, box in zip(self._numbers(boxes, len(whole)), boxes, strict=True)]
        return torch.equal(torch.stack(parts).to(x), x)

    def _same_prompts(self, rows: Sequence[Row], numbers: Sequence[int], text: Tensor) -> bool:
        """Whether the conditional ones of ``rows`` have the prompts that they have in the whole."""
        read = [n for n, (_, part) in enumerate(rows) if part is not None]
        own = self._text[[numbers[n] for n in read]]
        return not read or (text.shape[1:] == own.shape[1:] and torch.equal(text[read], own.to(text)))

    def _of_region(self, row: Row, box: Box, cut: bool) -> Row:
        """``row`` where its prompt is not the picture's.

        Somebody may have changed the prompt of what is not ``cut``.
        """
        image, part = row
        if part is None:
            return row
        here = [number for number, region in enumerate(self._regions) if region.box == box and region.typed]
        if not here and cut:
            raise TakenApart
        if not here:
            return row
        turn = self._foreign[box] // sum(part is not None for _, part in self._whole.rows)
        self._foreign[box] += 1
        return image, part + self._parts[image] * (1 + here[turn % len(here)])


def _find(x: Tensor, whole: Tensor) -> list[Box]:
    """The box of each row of ``x`` in the pictures of ``whole``. Raises :class:`TakenApart`."""
    boxes: list[Box] = []
    for piece in x:
        if boxes and any(torch.equal(boxes[-1].of(picture).to(piece), piece) for picture in whole):
            boxes.append(boxes[-1])
            continue
        found = (box_of(piece, picture) for picture in whole)
        box = next((box for box in found if box is not None), None)
        if box is None:
            raise TakenApart
        boxes.append(box)
    return boxes


def encodings(cond: Any) -> Tensor:
    """The prompts' encodings ``[n, context, width]`` in a host's conditioning, in any of its forms.
    """
    if isinstance(cond, dict):
        cond = cond["crossattn"] if "crossattn" in cond else cond["c_crossattn"]
    return cond[0] if isinstance(cond, list) else cond


def stranger(owner: Any, name: str) -> Method | None:
    """What another extension has put in the place of ``owner``'s method ``name``, if it has."""
    present = owner.__dict__.get(name)
    return None if present is None or present == _own(owner, name) else present


def _own(owner: Any, name: str) -> Method:
    method: Method = getattr(type(owner), name).__get__(owner)
    return method


@contextmanager
def given(owner: Any, name: str, instead: Callable[[Method], Method]) -> Iterator[bool]:
    """Inside the ``with`` the stranger in the place of ``owner.name`` calls ``instead(original)``.

    It gives whether a place was found where the stranger keeps the original: an attribute of its
    own or of ``owner``, or a variable that its function encloses.
    """
    theirs, own = owner.__dict__[name], _own(owner, name)
    method, found = instead(own), False
    with ExitStack() as stack:
        for holder in (getattr(theirs, "__self__", None), owner):
            for place, value in list(getattr(holder, "__dict__", {}).items()):
                if isinstance(value, MethodType) and value == own and (holder is not owner or place != name):
                    stack.enter_context(replaced(holder, place, method))
                    found = True
        for cell in getattr(theirs, "__closure__", None) or ():
            if isinstance(cell.cell_contents, MethodType) and cell.cell_contents == own:
                stack.callback(setattr, cell, "cell_contents", own)
                cell.cell_contents = method
                found = True
        yield found
