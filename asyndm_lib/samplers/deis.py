"""DEIS of Zhang & Chen (2023), as Forge's ``sample_deis``: slopes extrapolated in the time of a VP process."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from ..clock.sigma_map import PixelMap
from ..run.run import Run

ORDER = 3
_LOW, _HIGH, _START = math.log(0.002**2 + 1), math.log(80**2 + 1), 1e-3
"""The VP process whose time is taken: from the first noise level at ``_START`` to the second at 1."""
_BETA_D = 2 * (_LOW / _START - _HIGH) / (_START - 1)
_BETA_MIN = _HIGH - 0.5 * _BETA_D
_NODES, _SHARES = np.polynomial.legendre.leggauss(16)


def deis(run: Run, x: Tensor, *, coefficients: Sequence[Sequence[Tensor]] | None = None) -> Tensor:
    """``x [B, C, H, W]`` at the first sigma → the final latent, by the slopes at the last three noise levels.

    ``coefficients``: the host's own scalars for every step, the newest slope's first (none for the first step), where
    its rounding (it integrates numerically) is to be met to the bit.
    """
    slopes: list[Tensor] = []
    for step in run:
        denoised = step.predict(x)
        step.callback(x, denoised)
        slopes = [step.per_pixel(partial(_slope, x, denoised), step.sigma), *slopes[: ORDER - 1]]
        sigma_next = step.advance()
        if len(slopes) == 1 or sigma_next.scalar <= 0:
            x = step.per_pixel(partial(_straight, x, slopes[0]), step.sigma, sigma_next)
            continue
        levels = [sigma_next, step.sigma, *reversed(step.before[1 - ORDER :])]
        own = coefficients[step.i] if coefficients is not None else weights([level.scalar for level in levels])
        pairs = zip(own, weights([level.map for level in levels]), strict=True)
        x = step.per_pixel(partial(_update, x, slopes), *(PixelMap(scalar, map) for scalar, map in pairs))
    return x


def weights(levels: Sequence[Tensor]) -> list[Tensor]:
    """How much each slope counts in the step to ``levels[0]``; the slopes stand at ``levels[1:]``, newest first.

    The integrals over sigma of the Lagrange polynomials in time, element by element, by Gauss's nodes in log sigma.
    """
    to, *nodes = levels
    times = [_time(node) for node in nodes]
    low, high = nodes[0].log(), to.log()
    half, middle = (high - low) / 2, (high + low) / 2
    found = [torch.zeros_like(to) for _ in nodes]
    for place, share in zip(_NODES, _SHARES, strict=True):
        sigma = (middle + half * place).exp()
        time, change = _time(sigma), share * half * sigma
        for j, own in enumerate(times):
            value = change
            for k, other in enumerate(times):
                if k != j:
                    value = value * ((time - other) / (own - other))
            found[j] = found[j] + value
    # A curve may hold a pixel still for a step (piecewise linear with k = 1): it goes by its newest slope then.
    held = torch.zeros_like(to, dtype=torch.bool)
    for one, other in combinations(nodes, 2):
        held = held | (one == other)
    return [torch.where(held, to - nodes[0] if j == 0 else 0.0, value) for j, value in enumerate(found)]


def _time(sigma: Tensor) -> Tensor:
    """Of the VP process; element by element."""
    return ((_BETA_MIN**2 + 2 * _BETA_D * (sigma**2 + 1).log()).sqrt() - _BETA_MIN) / _BETA_D


def _slope(x: Tensor, denoised: Tensor, sigma: Tensor) -> Tensor:
    return (x - denoised) / sigma


def _straight(x: Tensor, slope: Tensor, sigma: Tensor, to: Tensor) -> Tensor:
    return x + (to - sigma) * slope


def _update(x: Tensor, slopes: Sequence[Tensor], *coefficients: Tensor) -> Tensor:
    for coefficient, slope in zip(coefficients, slopes, strict=True):
        x = x + coefficient * slope
    return x
