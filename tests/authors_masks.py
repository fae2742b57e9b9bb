"""The authors' own rule for what lags before the first map, for parity with their research code."""

from __future__ import annotations

import torch
from torch import Tensor

from asyndm_lib.clock.cells import Cells
from asyndm_lib.clock.clocks import Mask
from asyndm_lib.masks.source import MaskSource
from asyndm_lib.masks.target_masks import TIMINGS, Threshold
from asyndm_lib.masks.threshold import everywhere
from asyndm_lib.prompt.prompt_targets import PromptTargets
from asyndm_lib.settings.settings import Settings


class AuthorsThreshold(Threshold):
    """The method's rule, but for the first mask.

    It has the concavity of the target with the largest token index, where ours has the largest
    concavity (docs/METHOD.md, section 2).
    """

    def __init__(self, targets: PromptTargets, concavity: float, threshold: float, cells: Cells):
        super().__init__(targets, concavity, threshold, cells)
        self._targets, self._cells = targets, cells

    def first(self, present: Tensor) -> Mask:
        """Every cell of the images that hold a target."""
        images = []
        for image in range(self._cells.images):
            last = [
                max((at for _, positions in where.occurrences for at in positions), default=-1)
                for where in self._targets.found(image, 0)
            ]
            newest = max(range(len(last)), key=last.__getitem__)
            images.append(self.concavities[newest] if last[newest] >= 0 else -1.0)
        return everywhere(torch.tensor(images, device=self._cells.device), *self._cells.size)


def authors_masks(targets: PromptTargets | None, settings: Settings, cells: Cells) -> MaskSource:
    """The masks of a run as :func:`run.masks_of` makes them, but by the authors' rule."""
    assert targets is not None
    rule = AuthorsThreshold(targets, settings.concavity, settings.threshold, cells)
    return TIMINGS[settings.mask_timing](targets, rule, cells)
