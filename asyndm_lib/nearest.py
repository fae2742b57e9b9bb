"""Nearest-neighbour resampling, as the method uses it in both directions."""

from __future__ import annotations

from torch import Tensor, arange, device


def nearest(out: int, size: int, on: device | None = None) -> Tensor:
    """For each of ``out`` positions the one of ``size`` that it takes: ``floor(j·size/out)``, int64 ``[out]``.

    Downwards this is the top-left pixel of each cell, the authors' strided pick.
    """
    return arange(out, device=on) * size // out


class Resize:
    """Maps ``[..., H, W]`` at another size, ``[..., height, width]``; what they take from where is found once."""

    def __init__(self, height: int, width: int):
        self.size = height, width
        self._taken: dict[tuple, tuple[Tensor, Tensor]] = {}

    def __call__(self, map: Tensor) -> Tensor:
        key = (*map.shape[-2:], map.device)
        if key not in self._taken:
            rows, columns = (
                nearest(out, size, map.device) for out, size in zip(self.size, map.shape[-2:], strict=True)
            )
            self._taken[key] = rows[:, None], columns
        return map[(..., *self._taken[key])]


def resize(map: Tensor, height: int, width: int) -> Tensor:
    """``map [..., H, W]`` at another size, ``[..., height, width]``."""
    return Resize(height, width)(map)
