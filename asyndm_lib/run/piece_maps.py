"""Token maps of a whole picture from those of the pieces in which the model was given it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from ..clock.cells import Box, Cells
from ..models.family import Recorded, Size
from ..models.parts.resampling import Resize


class PieceMaps:
    """The token maps of a batch over the pieces of one evaluation.

    Pieces may overlap, and have prompts of their own. A pixel has the mean over the pieces that
    hold it, each by how much of the target its prompt holds, and 0 where no piece holds the target.
    """

    def __init__(self, cells: Cells):
        self._cells = cells
        self._sum: Tensor | None = None  # [B, T, H, W], as the shares added up
        self._shares: Tensor | None = None

    def add(self, recorded: Recorded, boxes: Sequence[Box], shares: Sequence[Tensor]) -> None:
        """Take in the maps of pieces.

        For each of the rows that were recorded there is its box, and its share ``[T]``: the sum of
        the weights that its tokens have for each target.
        """
        maps = recorded.maps
        if self._sum is None or self._shares is None:
            shape = self._cells.images, maps.shape[1], self._cells.height, self._cells.width
            self._sum, self._shares = maps.new_zeros(shape), maps.new_zeros(shape)
        for (image, _), box, map, share in zip(recorded.rows, boxes, maps, shares, strict=True):
            box.of(self._sum[image]).add_(Resize(box.height, box.width)(map))
            box.of(self._shares[image]).add_(share.to(maps)[:, None, None])

    def whole(self, size: Size) -> Recorded:
        """The maps of every image at ``size``, each as one row."""
        if self._sum is None or self._shares is None:
            return Recorded([], torch.empty(0, 0, *size))
        mean = self._sum / self._shares.clamp(min=torch.finfo(self._sum.dtype).tiny)
        return Recorded([(image, 0) for image in range(len(mean))], adaptive_avg_pool2d(mean, size))
