"""Token maps of a whole picture from those of the pieces in which the model was given it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from ..clock.cells import Box, Cells
from ..models.family import Recorded, Row, Size
from ..models.parts.resampling import Resize


class PieceMaps:
    """The token maps of a batch over the pieces of one evaluation.

    Pieces may overlap, and have prompts of their own. A pixel has the mean over the pieces that
    hold it, each by how much of the target its prompt holds, and 0 where no piece holds the target.
    """

    def __init__(self, cells: Cells):
        self._cells = cells
        # [B, T, H, W] each: the maps, the shares, and the parts of these that are shown the target.
        self._sum: tuple[Tensor, Tensor, Tensor] | None = None

    def add(self, recorded: Recorded, boxes: Sequence[Box], shares: Sequence[Tensor]) -> None:
        """Take in the maps of pieces.

        For each of the rows that were recorded there is its box, and its share ``[T]``: the sum of
        the weights that its tokens have for each target.
        """
        rows, maps, reach = recorded
        if self._sum is None:
            shape = self._cells.images, maps.shape[1], self._cells.height, self._cells.width
            self._sum = maps.new_zeros(shape), maps.new_zeros(shape), maps.new_zeros(shape)
        for n, ((image, _), box) in enumerate(zip(rows, boxes, strict=True)):
            share = shares[n].to(maps)[:, None, None]
            shown = share if reach is None else share * reach[n].to(maps)[:, None, None]
            for whole, piece in zip(self._sum, (Resize(box.height, box.width)(maps[n]), share, shown), strict=True):
                box.of(whole[image]).add_(piece)

    def whole(self, size: Size) -> Recorded:
        """The maps of every image at ``size``, each as one row."""
        if self._sum is None:
            return Recorded([], torch.empty(0, 0, *size))
        maps, shares, shown = self._sum
        shares = shares.clamp(min=torch.finfo(shares.dtype).tiny)
        rows: list[Row] = [(image, 0) for image in range(len(maps))]
        return Recorded(rows, adaptive_avg_pool2d(maps / shares, size), (shown / shares).mean(dim=(-2, -1)))
