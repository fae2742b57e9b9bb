"""UniPC, multistep and predicting the picture, the WebUI's own.

Each step corrects the latent by the newest prediction, at no further evaluation, and goes on by a
predictor of up to ``order``. ``x`` is in variance-preserving scale and the model gives eps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from math import factorial

import torch
from torch import Tensor

from ..clock.cells import sent
from ..clock.schedule import alpha
from ..clock.sigma_map import PixelMap, SigmaMap
from ..run.run import Run
from ..run.step import Step, coincide, past_of
from .row import Sampler
from .timesteps import NOT_FOR_FLOWS, at

ORDER = 3


@dataclass(frozen=True)
class Marginals:
    """A noise level as ``x = alpha·picture + std·noise``, of any shape.

    ``half_log_snr`` is ``log(alpha/std)``.
    """

    alpha: Tensor
    std: Tensor
    half_log_snr: Tensor


def unipc(
    run: Run,
    x: Tensor,
    *,
    order: int = ORDER,
    variant: str = "bh1",
    lower_order_final: bool = True,
    marginals: Sequence[Marginals] | None = None,
) -> Tensor:
    """UniPC of Zhao et al. (2023).

    ``order``: at most the number of steps. ``variant``: "bh1", "bh2" or "vary_coeff".
    ``lower_order_final``: whether the order goes down towards the end. ``marginals`` (``N + 1``):
    the host's own scalars (0-d) at every noise level.
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
    """UniPC with ``noise_in(step, x)`` for the model's eps; see :func:`unipc`.

    ``late``: whether the host's callback is a step behind.
    """
    sigmas: list[SigmaMap] = []
    levels: list[tuple[PixelMap, ...]] = []  # at ``sigmas``
    pictures: list[Tensor] = []  # predicted at ``levels``

    def reach(sigma: SigmaMap, i: int) -> None:
        sigmas.append(sigma)
        levels.append(_marginal_maps(sigma, at(marginals, i)))

    def solved(step: Step, start: Tensor, goal: int, newest: Tensor | None) -> Tensor:
        """The latent at the level ``goal``, from the one before; corrected by ``newest``."""
        first = goal - min(order, goal)
        if lower_order_final and goal >= order:
            first = goal - min(order, run.evaluations + 1 - goal)
        among = slice(first, goal + 1)
        alphas, stds, places = (list(quantity[::-1]) for quantity in zip(*levels[among], strict=True))
        places[2:] = past_of(sigmas[among][::-1], places)
        quantities = [quantity for level in zip(alphas, stds, places, strict=True) for quantity in level]
        known = pictures[first:goal][::-1]
        return step.per_pixel(lambda *quantities: _solve(variant, start, known, newest, *quantities), *quantities)

    start = x
    for step in run:
        if step.i == 0:
            reach(step.sigma, 0)
        eps = noise_in(step, x)
        picture = step.per_pixel(lambda alpha, std: (x - std * eps) / alpha, *levels[-1][:2])
        if step.i > 0:
            start = solved(step, start, step.i, picture)
        if late and step.i > 0:
            step.callback(start, picture, number=step.i - 1)
        elif not late and step.i + 1 < run.evaluations:
            step.callback(start, picture)
        pictures.append(picture)
        reach(step.advance(), step.i + 1)
        x = solved(step, start, step.i + 1, None)
    step.callback(x, None if late else picture)
    return x


def _marginal_maps(sigma: SigmaMap, own: Marginals | None) -> tuple[PixelMap, ...]:
    own = own or _marginals(sent(sigma.scalar, sigma.map.device, sigma.map.dtype))
    pairs = zip(astuple(own), astuple(_marginals(sigma.map)), strict=True)
    return tuple(PixelMap(scalar, map) for scalar, map in pairs)


def _marginals(sigma: Tensor) -> Marginals:
    scale = alpha(sigma).sqrt()
    return Marginals(scale, sigma * scale, sigma.log().neg())


def _solve(variant: str, x: Tensor, pictures: Sequence[Tensor], newest: Tensor | None, *quantities: Tensor) -> Tensor:
    """``x`` at the goal.

    ``quantities``: the :class:`Marginals` of the goal, then of the ``pictures``, last first.
    """
    goal, here, *others = (Marginals(*quantities[i : i + 3]) for i in range(0, len(quantities), 3))
    h = goal.half_log_snr - here.half_log_snr
    # A pixel that its curve holds still stays where it is; and where levels coincide it goes on by
    # the first order.
    held = h == 0
    h = torch.where(held, torch.ones_like(h), h)
    found = _update(variant, x, h, goal, here, [], pictures[:1], newest)
    if others:
        rks = [(other.half_log_snr - here.half_log_snr) / h for other in others]
        alike = coincide([torch.zeros_like(h), *rks])
        rks = [torch.where(alike, torch.full_like(h, -i), rk) for i, rk in enumerate(rks, start=1)]
        found = torch.where(alike, found, _update(variant, x, h, goal, here, rks, pictures, newest))
    return torch.where(held, x, found)


def _update(
    variant: str,
    x: Tensor,
    h: Tensor,
    goal: Marginals,
    here: Marginals,
    rks: Sequence[Tensor],
    pictures: Sequence[Tensor],
    newest: Tensor | None,
) -> Tensor:
    """UniP-p, or UniC-p with ``newest``, where p is the number of ``pictures``.

    They come last first; all but the first stand at ``rks``.
    """
    hh = -h
    h_phi_1 = torch.expm1(hh)
    rows = torch.stack([*rks, torch.ones_like(h)])
    d1s = [(picture - pictures[0]) / rk for rk, picture in zip(rks, pictures[1:], strict=True)]
    d1 = None if newest is None else newest - pictures[0]
    if variant == "vary_coeff":
        terms = _varying_terms(hh, h_phi_1, rows, d1s, d1)
    else:
        terms = [_b_h_term(hh, h_phi_1, hh if variant == "bh1" else h_phi_1, rows, d1s, d1)]
    x = (goal.std / here.std) * x - (goal.alpha * h_phi_1) * pictures[0]
    for share, bend in terms:
        x = x - (goal.alpha * share) * bend
    return x


Term = tuple[Tensor, Tensor | float]
"""A correction, and how much of it counts in ``alpha·picture``."""


def _b_h_term(hh: Tensor, h_phi_1: Tensor, b_h: Tensor, rows: Tensor, d1s: Sequence[Tensor], d1: Tensor | None) -> Term:
    """The correction of the B(h) form."""
    order = len(rows)
    matrix = torch.stack([torch.pow(rows, i) for i in range(order)])
    sums, phi = [], h_phi_1 / hh - 1
    for i in range(1, order + 1):
        sums.append(phi * factorial(i) / b_h)
        phi = phi / hh - 1 / factorial(i + 1)
    vector = torch.stack(sums)
    half = torch.full_like(vector[:1], 0.5)
    if d1 is not None:
        rhos = half if order == 1 else _solution(matrix, vector)
        return b_h, _weighted(rhos[:-1], d1s) + rhos[-1] * d1
    return b_h, _weighted(_solution(matrix[:-1, :-1], vector[:-1]) if order > 2 else half, d1s)


def _varying_terms(hh: Tensor, h_phi_1: Tensor, rows: Tensor, d1s: Sequence[Tensor], d1: Tensor | None) -> list[Term]:
    """The corrections of the form with varying coefficients."""
    order = len(rows)
    column, columns = torch.ones_like(rows), []
    for k in range(1, order + 1):
        columns.append(column)
        column = column * rows / (k + 1)
    matrix = torch.stack(columns, dim=1)
    phi, phis = h_phi_1, []
    for k in range(1, order + 2):
        phis.append(phi)
        phi = phi / hh - 1 / factorial(k)
    if d1 is None:
        inverse = _inverse(matrix[:-1, :-1]) if d1s else ()
        return [(phis[k + 1], _weighted(inverse[k], d1s)) for k in range(order - 1)]
    inverse = _inverse(matrix)
    terms = [(phis[k + 1], _weighted(inverse[k][:-1], d1s)) for k in range(order - 1)]
    # The row before the last, where there is one: so do the authors' code and the hosts.
    return [*terms, (phis[order], d1 * inverse[max(order - 2, 0)][-1])]


def _weighted(weights: Tensor, slopes: Sequence[Tensor]) -> Tensor | float:
    """The sum of ``slopes`` times ``weights [K, …]``."""
    if not slopes:
        return 0
    if weights.dim() == 1:  # the host's own way to add them up, for its rounding
        return torch.einsum("k,bk...->b...", weights, torch.stack(list(slopes), dim=1))
    return sum(weight * slope for weight, slope in zip(weights, slopes, strict=True))


def _solution(matrix: Tensor, vector: Tensor) -> Tensor:
    """``[K, …]`` that ``matrix [K, K, …]`` takes to ``vector [K, …]``, for every pixel."""
    if vector.dim() == 1:
        return torch.linalg.solve(matrix, vector)
    found = torch.linalg.solve(matrix.movedim((0, 1), (-2, -1)), vector.movedim(0, -1)[..., None])
    return found[..., 0].movedim(-1, 0)


def _inverse(matrix: Tensor) -> Tensor:
    """The inverse of ``matrix [K, K, …]``, for every pixel."""
    return torch.linalg.inv(matrix.movedim((0, 1), (-2, -1))).movedim((-2, -1), (0, 1))


def even_timesteps(steps: int) -> Tensor:
    """The WebUI's timesteps of UniPC; see :class:`row.Sampler`."""
    return torch.linspace(999, 0, steps + 1, dtype=torch.float64)


ROWS = (
    Sampler(
        "unipc",
        unipc,
        {"UniPC": {}},
        levels="timesteps",
        timesteps=even_timesteps,
        scalars="marginals",
        least_steps=ORDER,
        not_for_flows=NOT_FOR_FLOWS,
    ),
)
