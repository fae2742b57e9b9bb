"""Masks by hand: what a person has painted, or what is to be inpainted (docs/METHOD.md, section 2).

They are known before the first step, and ask nothing of the model.
"""

from __future__ import annotations

from collections.abc import Sequence, Set

import torch
from torch import Tensor

from ..clock.cells import Cells, precision
from ..clock.clocks import Mask
from ..errors import SettingsError
from ..models.family import Recorded, Row
from ..prompt.prompt_targets import PromptTargets
from .choice import Chosen
from .source import MaskSource, Words

HALF = 0.5 - 1e-4
"""The least share of a cell that makes it lag: a half, but for rounding."""


def shares(painted: Tensor, cells: Cells) -> Tensor:
    """How much of every cell is painted, ``[h, w]`` on the CPU.

    ``painted`` is bool ``[H', W']`` on the CPU, of any size: it is stretched over the picture.
    """
    rows, columns = (
        _overlaps(drawn, latent, cells.side)
        for drawn, latent in zip(painted.shape, (cells.height, cells.width), strict=True)
    )
    return rows @ painted.float() @ columns.T


def _overlaps(drawn: int, latent: int, side: int) -> Tensor:
    """The share of each cell of a row that lies in each of its ``drawn`` pixels, ``[n, drawn]``.

    The row has ``latent`` pixels of the latent, ``side`` to a cell.
    """
    edges = torch.arange(0, latent + side, side).clamp(max=latent).double() * drawn / latent
    begins, ends, pixel = edges[:-1, None], edges[1:, None], torch.arange(drawn)
    overlaps = (torch.minimum(ends, pixel + 1) - torch.maximum(begins, pixel)).clamp(min=0)
    return (overlaps / (ends - begins)).float()


def by_hand(painted: Tensor, concavity: float, cells: Cells) -> Mask:
    """The mask of the cells of which at least half is ``painted``, in every image alike.

    ``painted`` is as in :func:`shares`. Raises :class:`SettingsError` if there is no such cell.
    """
    related = shares(painted, cells) >= HALF
    if not related.any():
        raise SettingsError("the mask is empty: it covers half of no cell of the picture, so nothing would lag")
    related = related.to(cells.device).expand(cells.shape)
    return Mask(related, related.new_full((), concavity, dtype=precision(cells.device)).expand(cells.shape))


class WithWords:
    """A mask by hand together with the masks of target words: either's cells, or those of both.

    An image whose prompt holds no target has the mask by hand alone, and so have all where no token
    map can be read.
    """

    blind = False

    def __init__(self, words: MaskSource, hand: Mask, concavity: float, named: Tensor, both: bool):
        """``concavity`` is that of ``hand``. ``named`` is bool ``[B]``: the images whose prompts
        hold a target. ``both`` is whether a cell must belong to both.
        """
        self._words, self._hand, self._both = words, hand, both
        self._named = named.to(hand.related.device)[:, None, None, None]
        self.concavities = [*words.concavities, concavity]

    @property
    def reads(self) -> bool:
        """Whether token maps are read at all."""
        return self._words.reads

    @property
    def rehearsing(self) -> bool:
        """Whether the present or next pass is an ordinary one that only makes the words' masks."""
        return self._words.rehearsing

    @property
    def problems(self) -> Set[str]:
        """What the person should be told."""
        alone = {"the mask alone was used, as no target was found in the picture"} if self._words.blind else set()
        return self._words.problems | alone

    @property
    def maps(self) -> Tensor | None:
        """Token maps ``[B, T, h, w]`` that the present step read, or that made a static mask."""
        return self._words.maps

    def begin(self, moves: Sequence[bool], step: int) -> None:
        """A new pass."""
        self._words.begin(moves, step)

    @property
    def latest(self) -> Mask:
        """What is known to be related before an evaluation."""
        return self._together(self._words.latest)

    def wants(self, i: int) -> bool:
        """Whether some advance to come depends on the token maps of step ``i``."""
        return self._words.wants(i)

    def weights(self, row: Row, step: int, context: int, tokens: int | None) -> Tensor:
        """How much each of ``context`` tokens of a conditional row counts for each target."""
        return self._words.weights(row, step, context, tokens)

    def after(self, i: int, recorded: Recorded | None, step: int) -> Mask:
        """What is related in the advance that follows step ``i``."""
        return self._together(self._words.after(i, recorded, step))

    def end_rehearsal(self) -> None:
        """The ordinary pass is over; the next one makes the picture."""
        self._words.end_rehearsal()

    def chosen(self) -> Chosen:
        """No word was chosen: with a mask by hand only named words count."""
        return self._words.chosen()

    @property
    def mapless(self) -> int:
        """How many of the first advances know no map yet, so that all cells lag alike. Where a cell
        must belong to both, those of the mask alone lag then.
        """
        return self._words.mapless

    def words(self) -> Sequence[Words | None]:
        """The targets of each image so far."""
        return self._words.words()

    def move(self, targets: PromptTargets | None) -> None:
        """The host goes on with another model, in whose prompts ``targets`` stand."""
        self._words.move(targets)

    def _together(self, words: Mask) -> Mask:
        if self.rehearsing:
            return words
        hand = self._hand
        if self._words.blind:
            return hand
        if self._both:
            related = hand.related & (words.related | ~self._named)
            return Mask(related, torch.where(self._named, words.concavity, hand.concavity))
        of_hand, of_words = (torch.where(mask.related, mask.concavity, -1.0) for mask in (hand, words))
        return Mask(hand.related | words.related, torch.maximum(of_hand, of_words))
