"""Improved PNDM, Forge's: Adams-Bashforth over sigma without a warm-up.

It has a second form for steps of several sizes. Both forms are the host's, to the bit, for pixels
on its clock. Neither holds for the uneven steps of a pixel that lags: the first takes all steps for
even ones, and the second's weights of four do not add up to 1. Such a pixel goes by
:func:`lms.lagging_weights`, which are Adams-Bashforth's for any steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from ..run.run import Run
from ..run.step import coincide
from .euler import slope
from .lms import lagging_weights
from .row import Sampler

ORDER = 4


def ipndm(run: Run, x: Tensor) -> Tensor:
    """Improved PNDM of Zhang & Chen (2023), of order 4."""
    return _ipndm(run, x, _even)


def ipndm_v(run: Run, x: Tensor) -> Tensor:
    """Improved PNDM for steps of several sizes, of order 4 (Zhou et al. 2024, diff-sampler)."""
    return _ipndm(run, x, _uneven)


def _ipndm(run: Run, x: Tensor, host_step: Callable[..., Tensor]) -> Tensor:
    """``host_step(x, ds, *levels)``: the host's step to ``levels[0]``.

    ``ds``: the slopes at ``levels[1:]``, the newest first.
    """
    ds: list[Tensor] = []  # the newest first
    first = x  # what the host shows its callback in every step
    for step in run:
        denoised = step.predict(x)
        step.callback(first, denoised)
        d = slope(step, x, denoised, step.sigma)
        ds = [d, *ds[: ORDER - 1]]
        levels = step.levels(step.advance(), ORDER)
        own = host_step(x, ds, *(level.scalar for level in levels))
        coeffs = lagging_weights([level.map for level in levels])
        lagging = x + sum(coeff * d for coeff, d in zip(coeffs, ds, strict=True))
        x = torch.where(run.lagging, lagging.to(own.dtype), own)
    return x


def _even(x: Tensor, ds: Sequence[Tensor], sigma_next: Tensor, sigma: Tensor, *past: Tensor) -> Tensor:
    h = sigma_next - sigma
    match ds:
        case [d]:
            return x + h * d
        case [d, d_1]:
            return x + h * (3 * d - d_1) / 2
        case [d, d_1, d_2]:
            return x + h * (23 * d - 16 * d_1 + 5 * d_2) / 12
        case _:
            d, d_1, d_2, d_3 = ds
            return x + h * (55 * d - 59 * d_1 + 37 * d_2 - 9 * d_3) / 24


def _uneven(x: Tensor, ds: Sequence[Tensor], sigma_next: Tensor, *levels: Tensor) -> Tensor:
    """The step to ``sigma_next``; by the newest slope alone where ``levels`` coincide."""
    h = sigma_next - levels[0]
    widths = [newer - older for newer, older in pairwise(levels)]
    moved = x + h * sum(weight * d for weight, d in zip(_host_weights(h, *widths), ds, strict=True))
    return torch.where(coincide(levels), x + h * ds[0], moved)


def _host_weights(h: Tensor, *widths: Tensor) -> list[Tensor | float]:
    """How much each slope counts in the step ``h``, the newest first.

    The weights are those of diff-sampler, summed in its order. They are that code's, also the last
    one, with which four do not add up to 1 where steps differ in size. ``widths``: from level to
    level, the newest step first.
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
        case _:
            h_1, h_2, h_3 = widths
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


IPNDM = Sampler("sample_ipndm", ipndm, {"IPNDM": {}}, ("a1111", "forge"))
ROWS = (IPNDM, replace(IPNDM, name="sample_ipndm_v", function=ipndm_v, labels={"IPNDM_V": {}}))
