"""UniPC of Zhao et al. (2023), multistep and predicting the picture, as the WebUI's own.

Each step corrects the latent by the newest prediction, at no further evaluation, and goes on by a predictor
of up to ``order``. ``x`` is in variance-preserving scale and the model gives eps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from functools import partial
from itertools import combinations
from math import factorial

import torch
from torch import Tensor

from ..clock.schedule import alpha
from ..clock.sigma_map import PixelMap, SigmaMap
from ..run.run import Run
from ..run.step import Step
from .timesteps import at


@dataclass(frozen=True)
class Marginals:
    """A noise level as ``x = alpha·picture + std·noise``, with ``half_log_snr = log(alpha/std)``; of any shape."""

    alpha: Tensor
    std: Tensor
    half_log_snr: Tensor


def unipc(
    run: Run,
    x: Tensor,
    *,
    order: int = 3,
    variant: str = "bh1",
    lower_order_final: bool = True,
    marginals: Sequence[Marginals] | None = None,
) -> Tensor:
    """``x [B, C, H, W]`` → the latent at the schedule's end, in the same scale.

    ``order``: at most the number of steps. ``variant``: "bh1", "bh2" or "vary_coeff". ``lower_order_final``:
    go down in order towards the end. ``marginals`` (``N + 1``): the host's own scalars (0-d) at every
    noise level, where its rounding is to be met to the bit.
    """
    return unipc_of(run, x, Step.predict, order, variant, lower_order_final, marginals, late=True)


def unipc_of(
    run: Run,
    x: Tensor,
    noise_in: Callable[[Step, Tensor], Tensor],
    order: int,
    variant: str,
    lower_order_final: bool,
    marginals: Sequence[Marginals] | None,
    late: bool,
) -> Tensor:
    """:func:`unipc` with ``noise_in(step, x)`` for the model. ``late``: the host's callback is a step behind."""
    levels: list[tuple[PixelMap, ...]] = []
    pictures: list[Tensor] = []  # predicted at ``levels``

    def solved(step: Step, start: Tensor, goal: int, newest: Tensor | None) -> Tensor:
        """The latent at the level ``goal`` from that at the one before, corrected if its own picture is known."""
        first = goal - min(order, goal)
        if lower_order_final and goal >= order:
            first = goal - min(order, run.evaluations + 1 - goal)
        quantities = [quantity for level in reversed(levels[first : goal + 1]) for quantity in level]
        return step.per_pixel(partial(_solve, variant, start, pictures[first:goal], newest), *quantities)

    start = x
    for step in run:
        if step.i == 0:
            levels.append(_marginal_maps(step.sigma, at(marginals, 0)))
        picture = step.per_pixel(partial(_picture, x, noise_in(step, x)), *levels[-1][:2])
        if step.i > 0:
            start = solved(step, start, step.i, picture)
        if late and step.i > 0:
            step.callback(start, picture, number=step.i - 1)
        elif not late and step.i + 1 < run.evaluations:
            step.callback(start, picture)
        pictures.append(picture)
        levels.append(_marginal_maps(step.advance(), at(marginals, step.i + 1)))
        x = solved(step, start, step.i + 1, None)
    step.callback(x, None if late else picture)
    return x


def _marginal_maps(sigma: SigmaMap, own: Marginals | None) -> tuple[PixelMap, ...]:
    own = own or _marginals(sigma.scalar.to(sigma.map))
    pairs = zip(astuple(own), astuple(_marginals(sigma.map)), strict=True)
    return tuple(PixelMap(scalar, map) for scalar, map in pairs)


def _marginals(sigma: Tensor) -> Marginals:
    scale = alpha(sigma).sqrt()
    return Marginals(scale, sigma * scale, sigma.log().neg())


def _picture(x: Tensor, eps: Tensor, alpha: Tensor, std: Tensor) -> Tensor:
    return (x - std * eps) / alpha


def _solve(variant: str, x: Tensor, pictures: Sequence[Tensor], newest: Tensor | None, *quantities: Tensor) -> Tensor:
    """``x`` at the goal. ``quantities``: the :class:`Marginals` of the goal, then of the ``pictures``, last first."""
    goal, here, *others = (Marginals(*quantities[i : i + 3]) for i in range(0, len(quantities), 3))
    h = goal.half_log_snr - here.half_log_snr
    # A curve may hold a pixel still for a step (piecewise linear with k = 1). It stays where it is then; and
    # where levels coincide, which fix no polynomial, it goes on by the first order.
    held = h == 0
    h = torch.where(held, torch.ones_like(h), h)
    ratios = [(other.half_log_snr - here.half_log_snr) / h for other in others]
    alike = torch.zeros_like(held)
    for one, other in combinations([torch.zeros_like(h), *ratios], 2):
        alike = alike | (one == other)
    ratios = [torch.where(alike, torch.full_like(h, -i), ratio) for i, ratio in enumerate(ratios, start=1)]
    update = partial(_vary_update if variant == "vary_coeff" else partial(_bh_update, variant), x, h, goal, here)
    found = update([], pictures[-1:], newest)
    if others:
        found = torch.where(alike, found, update(ratios, pictures[::-1], newest))
    return torch.where(held, x, found)


def _bh_update(
    variant: str,
    x: Tensor,
    h: Tensor,
    goal: Marginals,
    here: Marginals,
    ratios: Sequence[Tensor],
    pictures: Sequence[Tensor],
    newest: Tensor | None,
) -> Tensor:
    """The B(h) form; predictor, or corrector with ``newest``. ``pictures``: last first, the others at ``ratios``."""
    order, hh = len(pictures), -h
    h_phi_1 = torch.expm1(hh)
    b_h = hh if variant == "bh1" else torch.expm1(hh)
    rows = torch.stack([*ratios, torch.ones_like(h)])
    matrix = torch.stack([torch.pow(rows, i) for i in range(order)])
    vector, phi = [], h_phi_1 / hh - 1
    for i in range(1, order + 1):
        vector.append(phi * factorial(i) / b_h)
        phi = phi / hh - 1 / factorial(i + 1)
    vector = torch.stack(vector)
    half = torch.full_like(vector[:1], 0.5)

    base = (goal.std / here.std) * x - (goal.alpha * h_phi_1) * pictures[0]
    slopes = _slopes(ratios, pictures)
    if newest is not None:
        weights = half if order == 1 else _solution(matrix, vector)
        bend = _weighted(weights[:-1], slopes) + weights[-1] * (newest - pictures[0])
    elif order > 2:
        bend = _weighted(_solution(matrix[:-1, :-1], vector[:-1]), slopes)
    else:
        bend = _weighted(half, slopes)
    return base - (goal.alpha * b_h) * bend


def _vary_update(
    x: Tensor,
    h: Tensor,
    goal: Marginals,
    here: Marginals,
    ratios: Sequence[Tensor],
    pictures: Sequence[Tensor],
    newest: Tensor | None,
) -> Tensor:
    """The form with varying coefficients; as :func:`_bh_update`."""
    order, hh = len(pictures), -h
    rows = torch.stack([*ratios, torch.ones_like(h)])
    column, columns = torch.ones_like(rows), []
    for k in range(1, order + 1):
        columns.append(column)
        column = column * rows / (k + 1)
    matrix = torch.stack(columns, dim=1)
    phi = h_phi_1 = torch.expm1(hh)
    phis = []
    for k in range(1, order + 2):
        phis.append(phi)
        phi = phi / hh - 1 / factorial(k)

    x = goal.std / here.std * x - goal.alpha * h_phi_1 * pictures[0]
    slopes = _slopes(ratios, pictures)
    if newest is None:
        inverse = _inverse(matrix[:-1, :-1]) if slopes else ()
        for k in range(order - 1):
            x = x - goal.alpha * phis[k + 1] * _weighted(inverse[k], slopes)
        return x
    inverse = _inverse(matrix)
    for k in range(order - 1):
        x = x - goal.alpha * phis[k + 1] * _weighted(inverse[k][:-1], slopes)
    # The row before the last, where there is one: so do the authors' code and the hosts.
    return x - goal.alpha * phis[order] * ((newest - pictures[0]) * inverse[max(order - 2, 0)][-1])


def _slopes(ratios: Sequence[Tensor], pictures: Sequence[Tensor]) -> list[Tensor]:
    return [(picture - pictures[0]) / ratio for ratio, picture in zip(ratios, pictures[1:], strict=True)]


def _weighted(weights: Tensor, slopes: Sequence[Tensor]) -> Tensor | float:
    """The sum of ``slopes`` times ``weights [K, …]``."""
    if not slopes:
        return 0
    if weights.dim() == 1:  # the host's own way to add them up, for its rounding
        return torch.einsum("k,bkchw->bchw", weights, torch.stack(slopes, dim=1))
    return sum(weight * slope for weight, slope in zip(weights, slopes, strict=True))


def _solution(matrix: Tensor, vector: Tensor) -> Tensor:
    """``[K, …]`` that ``matrix [K, K, …]`` takes to ``vector [K, …]``, for every pixel."""
    if vector.dim() == 1:
        return torch.linalg.solve(matrix, vector)
    found = torch.linalg.solve(matrix.movedim((0, 1), (-2, -1)), vector.movedim(0, -1)[..., None])
    return found[..., 0].movedim(-1, 0)


def _inverse(matrix: Tensor) -> Tensor:
    """Of ``matrix [K, K, …]``, for every pixel."""
    return torch.linalg.inv(matrix.movedim((0, 1), (-2, -1))).movedim((-2, -1), (0, 1))
