"""Linear multistep sampling (Adams-Bashforth over sigma), as ``k_diffusion.sampling.sample_lms``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import combinations

import torch
from torch import Tensor

from ..clock.sigma_map import PixelMap
from ..run.run import Run

ORDER = 4
_NODES = (-(3**-0.5), 3**-0.5)
"""Gauss's, on [-1, 1]: with two of them the integral of a polynomial up to the third degree is exact."""


def lms(
    run: Run,
    x: Tensor,
    *,
    coefficients: Sequence[Sequence[Tensor]] | None = None,
    ends_at_prediction: bool = False,
) -> Tensor:
    """``x [B, C, H, W]`` at the first sigma → the final latent, by the slopes at the last four noise levels.

    ``coefficients``: the host's own scalars for every step, the newest slope's first, where its rounding (it
    integrates numerically) is to be met to the bit. ``ends_at_prediction``: the last step extrapolates nothing, as in
    Forge Neo.
    """
    slopes: list[Tensor] = []
    for step in run:
        denoised = step.predict(x)
        slopes = [step.per_pixel(partial(_slope, x, denoised), step.sigma), *slopes[: ORDER - 1]]
        step.callback(x, denoised)
        to = step.advance()
        if ends_at_prediction and to.scalar == 0:
            x = denoised
            continue
        levels = [to, step.sigma, *reversed(step.before[1 - ORDER :])]
        own = coefficients[step.i] if coefficients is not None else weights([level.scalar for level in levels])
        maps = weights([level.map for level in levels])
        pairs = [PixelMap(scalar, map) for scalar, map in zip(own, maps, strict=True)]
        x = step.per_pixel(partial(_update, x, slopes), *pairs)
    return x


def weights(levels: Sequence[Tensor]) -> list[Tensor]:
    """How much each slope counts in the step to ``levels[0]``; the slopes stand at ``levels[1:]``, newest first.

    The integrals of the Lagrange polynomials from ``levels[1]`` to ``levels[0]``, element by element.
    """
    to, *nodes = levels
    half, middle = (to - nodes[0]) / 2, (to + nodes[0]) / 2
    found = []
    for j, own in enumerate(nodes):
        others = [node for k, node in enumerate(nodes) if k != j]
        total = 0
        for place in _NODES:
            value = half
            for other in others:
                value = value * ((middle + half * place - other) / (own - other))
            total = total + value
        found.append(total)
    # A curve may hold a pixel still for a step (piecewise linear with k = 1): it goes by its newest slope then.
    held = torch.zeros_like(to, dtype=torch.bool)
    for one, other in combinations(nodes, 2):
        held = held | (one == other)
    return [torch.where(held, 2 * half if j == 0 else 0.0, value) for j, value in enumerate(found)]


def _slope(x: Tensor, denoised: Tensor, sigma: Tensor) -> Tensor:
    return (x - denoised) / sigma


def _update(x: Tensor, slopes: Sequence[Tensor], *coefficients: Tensor) -> Tensor:
    return x + sum(coefficient * slope for coefficient, slope in zip(coefficients, slopes, strict=True))
