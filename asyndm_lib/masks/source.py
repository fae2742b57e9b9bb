"""The interface between a run and where its masks come from."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ..clock.cells import Cells, precision
from ..clock.clocks import Mask
from ..models.family import Recorded, Row
from ..prompt.prompt_targets import PromptTargets
from .choice import Chosen
from .threshold import everywhere


class Words(NamedTuple):
    """The targets of one image by their names: those whose map ``reached`` the threshold somewhere,
    and those ``nowhere`` seen, though they stand in the prompt.
    """

    reached: tuple[str, ...]
    nowhere: tuple[str, ...]


class MaskSource(Protocol):
    """Which cells are prompt-related in every step.

    A pass is one walk over all steps, numbered from 0. For each step a run asks :meth:`wants`,
    evaluates the model, and takes the mask of the advance that follows from :meth:`after`.
    """

    @property
    def reads(self) -> bool:
        """Whether token maps are read at all."""

    @property
    def rehearsing(self) -> bool:
        """Whether the present or next pass is an ordinary one that only makes the masks."""

    @property
    def concavities(self) -> Sequence[float]:
        """Every concavity that a mask can hold."""

    @property
    def problems(self) -> Set[str]:
        """What the person should be told."""

    @property
    def blind(self) -> bool:
        """Whether no token map could be read so far, so that nothing was related."""

    @property
    def maps(self) -> Tensor | None:
        """Token maps ``[B, T, h, w]`` that the present step read, or that made a static mask."""

    def begin(self, moves: Sequence[bool], step: int) -> None:
        """A new pass.

        ``moves`` says of each step whether the clock moves after it. ``step`` is the host's count
        of model evaluations.
        """

    @property
    def latest(self) -> Mask:
        """What is known to be related before an evaluation."""

    def wants(self, i: int) -> bool:
        """Whether some advance to come depends on the token maps of step ``i``."""

    def weights(self, row: Row, step: int, context: int, tokens: int | None) -> Tensor:
        """How much each of ``context`` tokens of a conditional row counts for each target.

        The result is ``[context, T]``. ``tokens`` is the length of the prompt's own context, where
        the host may repeat it.
        """

    def after(self, i: int, recorded: Recorded | None, step: int) -> Mask:
        """What is related in the advance that follows step ``i``.

        ``recorded`` are the token maps that the step read at the host's count ``step``, if it was
        to read any.
        """

    def end_rehearsal(self) -> None:
        """The ordinary pass is over; the next one makes the picture."""

    def chosen(self) -> Chosen:
        """The words chosen so far, where no targets were named. Waits for the device."""

    @property
    def mapless(self) -> int:
        """How many of the first advances of a pass know no map yet, so that all cells lag alike."""

    def words(self) -> Sequence[Words | None]:
        """The targets of each image so far; None where no words say what lags. Waits for the
        device.
        """

    def move(self, targets: PromptTargets | None) -> None:
        """The host goes on with another model, in whose prompts ``targets`` stand."""


class FixedMask:
    """The same mask in every step, whatever the model attends to."""

    reads = rehearsing = blind = False
    problems: Set[str] = frozenset()
    maps = None
    mapless = 0

    def __init__(self, mask: Mask, concavities: Sequence[float]):
        """``concavities`` are those that ``mask`` holds."""
        self.latest, self.concavities = mask, concavities

    @classmethod
    def whole_picture(cls, concavity: float, cells: Cells) -> FixedMask:
        """Every cell related in every step: the paper's DM_concave."""
        images = torch.full((cells.images,), concavity, dtype=precision(cells.device), device=cells.device)
        return cls(everywhere(images, *cells.size), [concavity])

    @classmethod
    def nothing(cls, cells: Cells) -> FixedMask:
        """No cell related in any step: an ordinary pass."""
        return cls(everywhere(torch.full((cells.images,), -1.0, device=cells.device), *cells.size), [])

    def begin(self, moves: Sequence[bool], step: int) -> None:
        """Nothing changes from pass to pass."""

    def wants(self, i: int) -> bool:
        """No step is read."""
        return False

    def weights(self, row: Row, step: int, context: int, tokens: int | None) -> Tensor:
        """No token counts."""
        return torch.zeros(context, 0)

    def after(self, i: int, recorded: Recorded | None, step: int) -> Mask:
        """The mask."""
        return self.latest

    def end_rehearsal(self) -> None:
        """There is none."""

    def chosen(self) -> Chosen:
        """No word was chosen for any image."""
        return [None] * len(self.latest.related)

    def words(self) -> Sequence[Words | None]:
        """No word says what lags."""
        return [None] * len(self.latest.related)

    def move(self, targets: PromptTargets | None) -> None:
        """Nothing is read from another model either."""
