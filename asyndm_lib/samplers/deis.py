"""DEIS, Forge's: slopes extrapolated in the time of a VP process."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..clock.sigma_map import PixelMap
from ..run.run import Run
from ..run.step import coincide, past_of
from .euler import slope
from .row import Sampler

ORDER = 3
_LOW, _HIGH, _START = math.log(0.002**2 + 1), math.log(80**2 + 1), 1e-3
"""The VP process whose time is taken.

It goes from the first noise level at ``_START`` to the second at 1.
"""
_BETA_D = 2 * (_LOW / _START - _HIGH) / (_START - 1)
_BETA_MIN = _HIGH - 0.5 * _BETA_D
_NODES, _SHARES = np.polynomial.legendre.leggauss(16)


def deis(run: Run, x: Tensor, *, coefficients: Sequence[Sequence[Tensor]] | None = None) -> Tensor:
    """DEIS of Zhang & Chen (2023), of order 3.

    ``coefficients``: the host's own scalars for every step, the newest slope's first (none for the
    first step). The host integrates numerically.
    """
    ds: list[Tensor] = []  # the newest first
    first = x  # what the host shows its callback in every step
    for step in run:
        denoised = step.predict(x)
        step.callback(first, denoised)
        d = slope(step, x, denoised, step.sigma)
        ds = [d, *ds[: ORDER - 1]]
        sigma_next = step.advance()
        if len(ds) == 1 or sigma_next.scalar <= 0:
            x = step.per_pixel(lambda sigma, to: x + (to - sigma) * d, step.sigma, sigma_next)
            continue
        levels = step.levels(sigma_next, ORDER)
        own = coefficients[step.i] if coefficients is not None else weights([level.scalar for level in levels])
        maps = weights([level.map for level in (*levels[:2], *past_of(levels, levels))])

        def update(*coeffs: Tensor) -> Tensor:
            new = x
            for coeff, d in zip(coeffs, ds, strict=True):
                new = new + coeff * d
            return new

        x = step.per_pixel(update, *(PixelMap(scalar, map) for scalar, map in zip(own, maps, strict=True)))
    return x


def weights(levels: Sequence[Tensor]) -> list[Tensor]:
    """How much each slope counts in the step to ``levels[0]``.

    The slopes stand at ``levels[1:]``, the newest first.
    The weights are the integrals over sigma of the Lagrange polynomials in time, element by
    element, by Gauss's nodes in log sigma. Where levels coincide (see :func:`step.coincide`) the
    newest slope counts alone.
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
    held = coincide(nodes)
    return [torch.where(held, to - nodes[0] if j == 0 else 0.0, value) for j, value in enumerate(found)]


def _time(sigma: Tensor) -> Tensor:
    """The time of the VP process at ``sigma``; element by element."""
    return ((_BETA_MIN**2 + 2 * _BETA_D * (sigma**2 + 1).log()).sqrt() - _BETA_MIN) / _BETA_D


ROWS = (Sampler("sample_deis", deis, {"DEIS": {}}, ("a1111", "forge"), scalars="exponential integrator"),)
