"""The extended reverse-time SDE solver, of up to the third order.

``lambda`` is noise over signal.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...clock.sigma_map import PixelMap, SigmaMap
from ...run.host import NoiseSampler
from ...run.run import Run
from ...run.step import past_of
from ..ancestral import independent_noise
from ..half_log_snr import half_log_snr
from ..row import Sampler

_POINTS = 200
"""How many points the sums have that stand for the paper's integrals."""


def er_sde(
    run: Run,
    x: Tensor,
    *,
    s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None,
    flow: bool = False,
) -> Tensor:
    """The extended reverse-time SDE solver of Cui et al. (2023), arXiv 2309.06169.

    A flow begins below sigma 1.
    """
    noise_sampler = noise_sampler or independent_noise(run, x)
    (descent,) = run.host.descents
    # All at once, as the host has them, for its rounding.
    own = _lambda(torch.stack(list(descent.scalars)), flow)

    def lambda_map(sigma: SigmaMap, i: int) -> PixelMap:
        return PixelMap(own[i], _lambda(sigma.map, flow))

    def integral(what: int, sigma: SigmaMap, to: SigmaMap, i: int) -> PixelMap:
        """The integral of ``(lambda - lambda(sigma))**what / scale`` between the two."""

        def value(sigma: Tensor, to: Tensor) -> Tensor:
            return _integral(what, _lambda(sigma, flow), _lambda(to, flow))

        return PixelMap(_integral(what, own[i], own[i + 1]), step.between(value, sigma, to).map)

    old_denoised = old_slope = x  # read from the second and the third step on
    for step in run:
        denoised = step.predict(x)
        step.callback(x, denoised)
        sigma, sigma_next = step.sigma, step.advance()
        if sigma_next.scalar == 0:
            x = denoised
            continue
        i = step.i
        lambda_s, lambda_t = lambda_map(sigma, i), lambda_map(sigma_next, i + 1)

        # Stage 1
        def first(sigma: Tensor, to: Tensor, now: Tensor, then: Tensor) -> Tensor:
            alpha_s, alpha_t = sigma / now, to / then
            r = _scale(then) / _scale(now)
            return alpha_t / alpha_s * r * x + alpha_t * (1 - r) * denoised

        new = step.per_pixel(first, sigma, sigma_next, lambda_s, lambda_t)
        noise = noise_sampler(sigma.scalar, sigma_next.scalar) if s_noise > 0 else None

        # Stage 2; where levels coincide there is no slope to go by
        slope = old_slope
        levels = step.levels(sigma_next, 3)
        lambdas = [lambda_t, lambda_s, *(lambda_map(level, i - j) for j, level in enumerate(levels[2:], start=1))]
        past = past_of(levels, lambdas)
        if i > 0:

            def slope_of(now: Tensor, past: Tensor) -> Tensor:
                return step.if_distinct([now, past], (denoised - old_denoised) / (now - past), 0.0)

            def second(to: Tensor, integral: Tensor, then: Tensor, now: Tensor, past: Tensor) -> Tensor:
                more = to / then * (then - now + integral * _scale(then)) * slope
                return step.if_distinct([now, past], new + more, new)

            slope = step.per_pixel(slope_of, lambda_s, lambdas[2])
            about = sigma_next, integral(0, sigma, sigma_next, i)
            new = step.per_pixel(second, *about, lambda_t, lambda_s, past[0])

        # Stage 3
        if i > 1:

            def bend_of(now: Tensor, past: Tensor, before: Tensor) -> Tensor:
                return step.if_distinct([now, past, before], (slope - old_slope) / ((now - before) / 2), 0.0)

            def third(to: Tensor, integral: Tensor, then: Tensor, now: Tensor, *past: Tensor) -> Tensor:
                more = to / then * (((then - now) ** 2) / 2 + integral * _scale(then)) * bend
                return step.if_distinct([now, *past], new + more, new)

            bend = step.per_pixel(bend_of, *lambdas[1:])
            about = sigma_next, integral(1, sigma, sigma_next, i)
            new = step.per_pixel(third, *about, lambda_t, lambda_s, *past)

        if noise is not None:

            def noised(to: Tensor, now: Tensor, then: Tensor) -> Tensor:
                r = _scale(then) / _scale(now)
                return new + to / then * noise * s_noise * (then**2 - now**2 * r**2).sqrt().nan_to_num(nan=0.0)

            new = step.per_pixel(noised, sigma_next, lambda_s, lambda_t)
        x, old_denoised, old_slope = new, denoised, slope
    return x


def _lambda(sigma: Tensor, flow: bool) -> Tensor:
    return half_log_snr(sigma, flow).neg().exp()


def _scale(level: Tensor) -> Tensor:
    """The paper's noise scale function (its ER SDE 5)."""
    return level * ((level**0.3).exp() + 10.0)


def _integral(what: int, now: Tensor, to: Tensor) -> Tensor:
    width = -(to - now) / float(_POINTS)
    points = to[..., None] + torch.arange(0, _POINTS, dtype=torch.float32, device=to.device) * width[..., None]
    above = 1 if what == 0 else points - now[..., None]
    return torch.sum(above / _scale(points), dim=-1) * width


ROWS = (Sampler("sample_er_sde", er_sde, {"ER SDE": {}}, ("neo",), noise="independent", begins_below_all_noise=True),)
