"""Nearest-neighbour resampling, as the method uses it in both directions."""

from __future__ import annotations

from torch import Tensor, arange, device


def nearest(out: int, size: int, on: device | None = None) -> Tensor:
    """For each of ``out`` positions the one of ``size`` that it takes: ``floor(j·size/out)``, int64 ``[out]``.

    Downwards this is the top-left pixel of each cell, the authors' strided pick.
    """
    return arange(out, device=on) * size // out


def resize(map: Tensor, height: int, width: int) -> Tensor:
    """``map [..., H, W]`` at another size, ``[..., height, width]``."""
    rows, columns = nearest(height, map.shape[-2], map.device), nearest(width, map.shape[-1], map.device)
    return map[..., rows[:, None], columns]
