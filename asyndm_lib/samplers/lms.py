"""Linear multistep sampling: Adams-Bashforth over sigma.

Weights of the full order extrapolate far over the growing steps of a pixel that lags, also where
its curve is an ordinary one. Such a pixel goes by :func:`lagging_weights`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial, reduce
from operator import add

import numpy as np
import torch
from torch import Tensor

from ..clock.sigma_map import PixelMap, SigmaMap
from ..run.run import Run
from ..run.step import coincide
from .euler import slope
from .row import Sampler

ORDER = 4
_NODES = (-(3**-0.5), 3**-0.5)
"""Gauss's nodes on [-1, 1].

Two of them make the integral of a polynomial up to the third degree exact.
"""
MOST = 44 / 12
"""How much a lagging pixel's weights may amount to, without their signs.

Three slopes of even steps amount to as much. Where steps grow, three and four amount to any number
of times more, and so does what is wrong with a slope.
"""


def lms(
    run: Run,
    x: Tensor,
    *,
    order: int = ORDER,
    coefficients: Sequence[Sequence[Tensor]] | None = None,
    ends_at_prediction: bool = False,
) -> Tensor:
    """Linear multistep sampling of up to ``order``.

    ``coefficients``: the host's own scalars for every step, the newest slope's first. The host
    integrates numerically. ``ends_at_prediction``: whether the last step extrapolates nothing, as
    in Forge Neo.
    """
    ds: list[Tensor] = []  # the newest first
    sigmas: list[SigmaMap] = []  # where they stand
    for step in run:
        denoised = step.predict(x)
        d = slope(step, x, denoised, step.sigma)
        ds, sigmas = [d, *ds[: order - 1]], [step.sigma, *sigmas[: order - 1]]
        step.callback(x, denoised)
        sigma_next = step.advance()
        if ends_at_prediction and sigma_next.scalar == 0:
            x = denoised
            continue
        levels = [sigma_next, *sigmas]
        own = coefficients[step.i] if coefficients is not None else weights([level.scalar for level in levels])
        maps = lagging_weights([level.map for level in levels])

        def update(*coeffs: Tensor) -> Tensor:
            return x + sum(coeff * d for coeff, d in zip(coeffs, ds, strict=True))

        x = step.per_pixel(update, *(PixelMap(scalar, map) for scalar, map in zip(own, maps, strict=True)))
    return x


def weights(levels: Sequence[Tensor]) -> list[Tensor]:
    """How much each slope counts in the step to ``levels[0]``.

    The slopes stand at ``levels[1:]``, the newest first.
    The weights are the integrals of the Lagrange polynomials from ``levels[1]`` to ``levels[0]``,
    element by element. Where levels coincide (see :func:`step.coincide`) the newest slope counts
    alone.
    """
    to, *nodes = levels
    half, middle = (to - nodes[0]) / 2, (to + nodes[0]) / 2

    pieces = [(place, half) for place in _NODES]
    if len(nodes) > ORDER:
        more = zip(*np.polynomial.legendre.leggauss((len(nodes) + 1) // 2), strict=True)
        pieces = [(float(place), half * float(share)) for place, share in more]

    def polynomial(j: int, place: float, share: Tensor) -> Tensor:
        value = share
        for k, other in enumerate(nodes):
            if k != j:
                value = value * ((middle + half * place - other) / (nodes[j] - other))
        return value

    found = [reduce(add, (polynomial(j, *piece) for piece in pieces)) for j in range(len(nodes))]
    held = coincide(nodes)
    return [torch.where(held, 2 * half if j == 0 else 0.0, value) for j, value in enumerate(found)]


def lagging_weights(levels: Sequence[Tensor]) -> list[Tensor]:
    """How much each slope counts of a pixel that lags.

    They are the :func:`weights` of the highest order that keeps to :data:`MOST`, element by
    element.
    """
    most = MOST * (levels[0] - levels[1]).abs()
    found = weights(levels[:2])
    for count in range(2, len(levels)):
        higher = weights(levels[: count + 1])
        kept = sum(weight.abs() for weight in higher) <= most
        found = [torch.where(kept, *pair) for pair in zip(higher, [*found, torch.zeros_like(most)], strict=True)]
    return found


LMS = Sampler("sample_lms", lms, {"LMS": {}}, scalars="linear multistep")
ROWS = (LMS, replace(LMS, function=partial(lms, ends_at_prediction=True), hosts=("neo",)))
