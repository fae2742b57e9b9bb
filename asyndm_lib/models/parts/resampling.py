"""Nearest-neighbour resampling, as the method uses it in both directions."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, arange, device


def nearest(out: int, size: int, on: device | None = None) -> Tensor:
    """For each of ``out`` positions the one of ``size`` that it takes: ``floor(j·size/out)``,
    int64 ``[out]``.

    Downwards this is the top-left pixel of each cell, the authors' strided pick.
    """
    return arange(out, device=on) * size // out


def cells(out: Sequence[int], size: Sequence[int], on: device | None = None) -> Tensor:
    """For each pixel of a map of size ``out`` the one of a map of ``size`` that it takes, int64
    ``[h·w]``.
    """
    rows, columns = nearest(out[0], size[0], on), nearest(out[1], size[1], on)
    return (rows[:, None] * size[1] + columns).flatten()


class Resize:
    """Maps ``[..., H, W]`` at another size, ``[..., height, width]``; what they take from where is
    found once.
    """

    def __init__(self, height: int, width: int):
        self.size = height, width
        self._cells: dict[tuple, Tensor] = {}

    def __call__(self, map: Tensor) -> Tensor:
        if map.shape[-2:] == self.size:
            return map
        key = (*map.shape[-2:], map.device)
        if key not in self._cells:
            self._cells[key] = cells(self.size, map.shape[-2:], map.device)
        return map.flatten(-2).index_select(-1, self._cells[key]).unflatten(-1, self.size)


def resize(map: Tensor, height: int, width: int) -> Tensor:
    """``map [..., H, W]`` at another size, ``[..., height, width]``."""
    return Resize(height, width)(map)
