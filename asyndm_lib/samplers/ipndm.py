"""Improved PNDM of Zhang & Chen (2023), as Forge's ``sample_ipndm``: Adams-Bashforth over sigma, without a warm-up.

``ipndm_v`` is its form for steps of several sizes (Zhou et al. 2024, diff-sampler), as Forge's ``sample_ipndm_v``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from ..run.run import Run

ORDER = 4


def ipndm(run: Run, x: Tensor) -> Tensor:
    """``x [B, C, H, W]`` at the first sigma → the final latent, by the slopes at the last four noise levels."""
    return _multistep(run, x, _even)


def ipndm_v(run: Run, x: Tensor) -> Tensor:
    """As :func:`ipndm`, by how far apart the noise levels are."""
    return _multistep(run, x, _uneven)


def _multistep(run: Run, x: Tensor, update: Callable[..., Tensor]) -> Tensor:
    slopes: list[Tensor] = []  # the newest first
    for step in run:
        denoised = step.predict(x)
        step.callback(x, denoised)
        slopes = [step.per_pixel(partial(_slope, x, denoised), step.sigma), *slopes[: ORDER - 1]]
        levels = [step.advance(), step.sigma, *reversed(step.before[1 - ORDER :])]
        x = step.per_pixel(partial(update, x, slopes), *levels)
    return x


def _slope(x: Tensor, denoised: Tensor, sigma: Tensor) -> Tensor:
    return (x - denoised) / sigma


def _even(x: Tensor, slopes: Sequence[Tensor], to: Tensor, sigma: Tensor, *before: Tensor) -> Tensor:
    h = to - sigma
    match slopes:
        case [d]:
            return x + h * d
        case [d, d_1]:
            return x + h * (3 * d - d_1) / 2
        case [d, d_1, d_2]:
            return x + h * (23 * d - 16 * d_1 + 5 * d_2) / 12
        case [d, d_1, d_2, d_3]:
            return x + h * (55 * d - 59 * d_1 + 37 * d_2 - 9 * d_3) / 24


def _uneven(x: Tensor, slopes: Sequence[Tensor], to: Tensor, *levels: Tensor) -> Tensor:
    h = to - levels[0]
    # From level to level, the newest step first.
    widths = [newer - older for newer, older in pairwise(levels)]
    slope = sum(weight * slope for weight, slope in zip(_weights(h, *widths), slopes, strict=True))
    moved = x + h * slope
    # A curve may hold a pixel still for a step (piecewise linear with k = 1): it goes by its newest slope then.
    held = torch.zeros_like(h, dtype=torch.bool)
    for width in widths:
        held = held | (width == 0)
    return torch.where(held, x + h * slopes[0], moved)


def _weights(h: Tensor, *widths: Tensor) -> list[Tensor | float]:
    """How much each slope counts in the step ``h``, the newest first; in the order of diff-sampler's sums.

    They are that code's, also the last one, with which four do not add up to 1 where steps differ in size.
    """
    match widths:
        case []:
            return [1.0]
        case [h_1]:
            return [(2 + (h / h_1)) / 2, -(h / h_1) / 2]
        case [h_1, h_2]:
            bend = _bend(h, h_1, h_2)
            return [
                (2 + (h / h_1)) / 2 + bend,
                -(h / h_1) / 2 - (1 + h_1 / h_2) * bend,
                bend * h_1 / h_2,
            ]
        case [h_1, h_2, h_3]:
            bend = _bend(h, h_1, h_2)
            twist = (
                ((1 - h / (3 * (h + h_1))) / 2 + (1 - h / (2 * (h + h_1))) * h / (6 * (h + h_1 + h_2)))
                * (h * (h + h_1) * (h + h_1 + h_2))
                / (h_1 * (h_1 + h_2) * (h_1 + h_2 + h_3))
            )
            ratio = h_1 * (h_1 + h_2) / (h_2 * (h_2 + h_3))
            return [
                (2 + (h / h_1)) / 2 + bend + twist,
                -(h / h_1) / 2 - (1 + h_1 / h_2) * bend - (1 + (h_1 / h_2) + ratio) * twist,
                bend * h_1 / h_2 + ((h_1 / h_2) + ratio * (1 + h_2 / h_3)) * twist,
                -twist * ratio * h_1 / h_2,
            ]


def _bend(h: Tensor, h_1: Tensor, h_2: Tensor) -> Tensor:
    return (1 - h / (3 * (h + h_1)) * (h * (h + h_1)) / (h_1 * (h_1 + h_2))) / 2
