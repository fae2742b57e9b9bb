"""Masks of target words, by the mask timing (docs/METHOD.md, section 2).

The mask of a step comes from the token maps of the step before (lagged), of the step itself
(fresh), or of an ordinary pass first (static).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from functools import cache, partial
from typing import Protocol

import torch
from torch import Tensor

from ..clock.cells import Cells, precision
from ..clock.clocks import Mask
from ..models.family import Recorded, Row
from ..models.parts.resampling import Resize
from ..prompt.prompt_targets import PromptTargets
from .choice import EVALUATIONS, Choice, Chosen
from .source import MaskSource, Words
from .threshold import everywhere, reached, relate, relate_alike


class Rule(Protocol):
    """How token maps make a mask."""

    @property
    def concavities(self) -> Sequence[float]:
        """The concavity of each target."""

    @property
    def threshold(self) -> float:
        """From which multiple of its mean on a token map relates a place."""

    def mask(self, maps: Tensor, present: Tensor, reach: Tensor | None) -> Mask:
        """The mask of token maps ``[B, T, h, w]``.

        ``present`` is bool ``[B, T]``: which targets each image's prompt holds. ``reach`` is the
        part of the picture that is shown each, see :class:`models.family.Recorded`.
        """

    def first(self, present: Tensor) -> Mask:
        """What counts as related before the first map exists."""

    def none(self) -> Mask:
        """Nothing related."""


class Threshold:
    """The method's rule: related is where some target's map reaches a multiple of its mean."""

    def __init__(self, targets: PromptTargets, concavity: float, threshold: float, cells: Cells):
        """``concavity`` is of targets that name none."""
        own = [target.concavity for target in targets.targets]
        self.concavities = [concavity if k is None else k for k in own]
        self.threshold, self._cells = threshold, cells
        self._k = torch.tensor(self.concavities, dtype=precision(cells.device), device=cells.device)
        self._to_cells = Resize(*cells.size)
        self._present_k: tuple[Tensor, Tensor] | None = None

    def mask(self, maps: Tensor, present: Tensor, reach: Tensor | None = None) -> Mask:
        """``OR_o [A^o >= threshold·mean(A^o)]``, with the largest concavity that holds a cell."""
        if len(set(self.concavities)) > 1:
            return relate(maps, self._of_present(present), self.threshold, self._to_cells, reach)
        return relate_alike(maps, present, self._k[0], self.threshold, self._to_cells, reach)

    def first(self, present: Tensor) -> Mask:
        """Every cell of the images that hold a target, with the largest concavity of those."""
        return everywhere(self._of_present(present).amax(dim=1), *self._cells.size)

    def none(self) -> Mask:
        """Nothing related."""
        images = torch.full((self._cells.images,), -1.0, device=self._cells.device)
        return everywhere(images, *self._cells.size)

    def _of_present(self, present: Tensor) -> Tensor:
        """Concavities ``[B, T]``, negative where an image does not hold the target."""
        if self._present_k is None or self._present_k[0] is not present:  # it seldom changes
            self._present_k = present, torch.where(present, self._k, -1.0)
        return self._present_k[1]


class TargetMaps:
    """The token maps of a batch's targets, step by step.

    ``choice`` is among the candidates of images that name no targets; None if all images name some.
    """

    def __init__(self, targets: PromptTargets, cells: Cells):
        self.targets, self._cells = targets, cells
        self.choice = Choice(targets, cells.device) if targets.automatic else None
        self._index = cache(partial(torch.tensor, device=cells.device))  # sent to the device once
        self._context: int | None = None

    def weights(self, row: Row, step: int, context: int, tokens: int | None) -> Tensor:
        """How much each token of a row counts for each target, ``[context, T]``."""
        image, part = row
        assert part is not None
        copies = context // tokens if tokens and context % tokens == 0 else 1
        own = context // copies
        self._context = own if self._context is None else max(own, self._context)
        weights = self.targets.weights(image, part, step, own, self._cells.device)
        # A token's attention is that to all its copies together.
        return weights if copies == 1 else weights.repeat(copies, 1)

    def present(self, step: int) -> Tensor:
        """Bool ``[B, T]``: which targets the model has read in each image's prompt at ``step``."""
        return self.targets.present(step, self._cells.device, self._context)

    def unread(self, step: int) -> set[str]:
        """The targets that stand in a prompt at ``step``, but where the model reads no more."""
        return {
            str(target)
            for image in range(self._cells.images)
            for target, where in zip(self.targets.targets, self.targets.found(image, step), strict=True)
            if where.occurrences and not where.begins_within(self._context)
        }

    def of(self, recorded: Recorded, step: int) -> tuple[Tensor, Tensor | None]:
        """The maps ``[B, T, h, w]`` of all images from those of the rows that were read, and their
        reach ``[B, T]``.
        """
        (_, maps, reach), images = recorded, tuple(image for image, _ in recorded.rows)
        if images != tuple(range(self._cells.images)):
            if reach is None and len(set(images)) < self._cells.images:
                reach = maps.new_ones(maps.shape[:2])  # an image that was not read is shown nothing
            # An image's AND parts share its targets: their weights add up to the mean over all.
            maps = self._of_images(images, maps)
            reach = None if reach is None else self._of_images(images, reach).clamp(max=1)
        if self.choice is not None:
            self.choice.see(maps, self.targets.present(step), reach)
        return maps, reach

    def _of_images(self, images: tuple[int, ...], of_rows: Tensor) -> Tensor:
        own = of_rows.new_zeros(self._cells.images, *of_rows.shape[1:])
        return own.index_add(0, self._index(images), of_rows)

    def of_chosen(self, maps: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Both without the candidates that are not chosen."""
        if self.choice is None:
            return maps, present
        return maps * self.choice.chosen[:, :, None, None], present & self.choice.chosen


class _TargetMasks:
    """What the three timings share. ``maps`` of candidates that are not chosen are zero."""

    reads = True
    rehearsing = False
    mapless = 0

    def __init__(self, targets: PromptTargets, rule: Rule, cells: Cells):
        self.rule, self.concavities = rule, rule.concavities
        self._problems: set[str] = set()
        self._tried = self.blind = False
        self._shown: dict[tuple[int, str], bool] = {}
        self._ruled: list[tuple[Tensor, Tensor, Tensor | None, Tensor]] = []
        self.maps: Tensor | None = None
        self._targets = TargetMaps(targets, cells)
        self._moves: Sequence[bool] = ()

    @property
    def problems(self) -> Set[str]:
        """What the person should be told."""
        unshown = {name for (_, name), shown in self._shown.items() if not shown}
        return self._problems | {
            f'the model\'s attention to "{name:.80}" was not seen, as another extension shows that word to no part '
            "of the picture, so nothing was related to it"
            for name in unshown
        }

    def begin(self, moves: Sequence[bool], step: int) -> None:
        """A new pass."""
        self._moves = [*moves, False]

    def weights(self, row: Row, step: int, context: int, tokens: int | None) -> Tensor:
        """How much each token of a row counts for each target, ``[context, T]``."""
        return self._targets.weights(row, step, context, tokens)

    def end_rehearsal(self) -> None:
        """There is none."""

    def chosen(self) -> Chosen:
        """The words chosen so far; None for an image whose targets were named."""
        choice = self._targets.choice
        return [None] * len(self._targets.targets.prompts) if choice is None else choice.words()

    def words(self) -> Sequence[Words | None]:
        """The targets of each image that some mask so far was made of.

        Those of concavity 0 are left out, and candidates that were not chosen.
        """
        shape = len(self._targets.targets.prompts), len(self.concavities)
        there, found = torch.zeros(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.bool)
        for highest, mean, reach, present in self._ruled:
            there = there | present.cpu()
            found = found | (reached(highest, mean, self.rule.threshold, reach) & present).cpu()
        slow = torch.tensor(self.concavities) > 0
        targets = zip(self._targets.targets.targets, self.concavities, strict=True)
        names = [str(target) for target, k in targets if k > 0]
        words = []
        for yes, own, chosen in zip(there[:, slow], found[:, slow], self.chosen(), strict=True):
            here = [name for name, present in zip(names, yes.tolist(), strict=True) if present]
            seen = [name for name, hit in zip(names, own.tolist(), strict=True) if hit]
            if chosen is None:
                words.append(Words(tuple(seen), tuple(name for name in here if name not in seen)))
            else:
                words.append(Words(tuple(name for name in seen if name in chosen), ()))
        return words

    def move(self, targets: PromptTargets | None) -> None:
        """The same targets from now on, where they stand in another model's prompts."""
        assert targets is not None
        self._targets.targets = targets

    def _for_choice(self, i: int) -> bool:
        return self._targets.choice is not None and i < EVALUATIONS

    def _whether_read(self, recorded: Recorded, step: int) -> bool:
        for name in self._targets.unread(step):
            self._problems.add(
                f'the model\'s attention to "{name:.80}" was not seen, as it reads no prompt as far as that, '
                "so nothing was related to it"
            )
        if not recorded.rows:
            self._problems.add(
                "no token maps could be read in some steps, so nothing was related in them (another extension "
                "changes what the model's attention works on; switch it or AsynDM off)"
            )
        self.blind = not recorded.rows and (self.blind or not self._tried)
        self._tried = True
        return bool(recorded.rows)

    def _note_shown(self, present: Tensor, reach: Tensor | None) -> None:
        """Keep whether each named target was ever shown to a part of its picture."""
        if reach is None:
            return
        images, targets = self._targets.targets.automatic, self._targets.targets.targets
        for (image, target), shown in zip(present.nonzero().tolist(), (reach > 0)[present].tolist(), strict=True):
            if image not in images:
                key = image, str(targets[target])
                self._shown[key] = shown or self._shown.get(key, False)

    def _mask(self, recorded: Recorded, step: int) -> Mask:
        present = self._targets.present(step)
        if not self._whether_read(recorded, step):
            return self.rule.none()
        maps, reach = self._targets.of(recorded, step)
        self._note_shown(present, reach)
        self.maps, present = self._targets.of_chosen(maps, present)
        return self._mask_of(self.maps, present, reach)

    def _mask_of(self, maps: Tensor, present: Tensor, reach: Tensor | None) -> Mask:
        self._ruled.append((maps.amax(dim=(-2, -1)), maps.mean(dim=(-2, -1)), reach, present))
        return self.rule.mask(maps, present, reach)


class FreshMasks(_TargetMasks):
    """The mask of a step from the step's own token maps."""

    def begin(self, moves: Sequence[bool], step: int) -> None:
        """A new pass, before whose first map every cell counts as related."""
        super().begin(moves, step)
        self.latest = self.rule.first(self._targets.present(step))

    def wants(self, i: int) -> bool:
        """Each step before which the clock is to move reads its maps."""
        return self._for_choice(i) or self._moves[i]

    def after(self, i: int, recorded: Recorded | None, step: int) -> Mask:
        """The mask of the maps that were just read."""
        self.maps = None
        if recorded is not None:
            self.latest = self._mask(recorded, step)
        return self.latest


class LaggedMasks(_TargetMasks):
    """The mask of a step from the token maps of the step before, as in the paper."""

    mapless = 1

    def begin(self, moves: Sequence[bool], step: int) -> None:
        """A new pass, before whose first map every cell counts as related."""
        super().begin(moves, step)
        self.latest = self.rule.first(self._targets.present(step))

    def wants(self, i: int) -> bool:
        """Each step reads its maps whose successor moves the clock."""
        return self._for_choice(i) or self._moves[i + 1]

    def after(self, i: int, recorded: Recorded | None, step: int) -> Mask:
        """The mask of the step before; that of the maps just read is the next one's."""
        self.maps, mask = None, self.latest
        if recorded is not None:
            self.latest = self._mask(recorded, step)
        return self.latest if self.blind else mask


class StaticMasks(_TargetMasks):
    """One mask, of each target's mean map over the steps of an ordinary pass that held it."""

    def __init__(self, targets: PromptTargets, rule: Rule, cells: Cells):
        super().__init__(targets, rule, cells)
        self.rehearsing = True
        self._sum: Tensor | None = None
        self._reach: Tensor | None = None
        self._seen = torch.zeros(cells.images, len(rule.concavities), device=cells.device)
        self._mask_of_all = rule.none()

    @property
    def latest(self) -> Mask:
        """Nothing in the ordinary pass, then the mask."""
        return self._mask_of_all

    def wants(self, i: int) -> bool:
        """Every step of the ordinary pass is read."""
        return self.rehearsing

    def after(self, i: int, recorded: Recorded | None, step: int) -> Mask:
        """Nothing in the ordinary pass, whose maps are added up; then the mask."""
        if recorded is not None and self._whether_read(recorded, step):
            (maps, reach), present = self._targets.of(recorded, step), self._targets.present(step)
            self._note_shown(present, reach)
            seen = maps * present[:, :, None, None]
            self._sum = seen if self._sum is None else self._sum + seen
            self._seen = self._seen + present
            if reach is not None:
                self._reach = (0 if self._reach is None else self._reach) + reach * present
        return self._mask_of_all

    def end_rehearsal(self) -> None:
        """From now on the mask holds."""
        self.rehearsing = False
        if self._sum is None:
            return
        count = self._seen.clamp(min=1)
        mean, reach = self._sum / count[:, :, None, None], None if self._reach is None else self._reach / count
        self.maps, seen = self._targets.of_chosen(mean, self._seen > 0)
        self._mask_of_all = self._mask_of(self.maps, seen, reach)


Timing = Callable[[PromptTargets, Rule, Cells], MaskSource]

TIMINGS: dict[str, Timing] = {"lagged": LaggedMasks, "fresh": FreshMasks, "static": StaticMasks}
"""Name of a mask timing → its masks."""
