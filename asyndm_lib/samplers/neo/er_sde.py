"""The extended reverse-time SDE solver of Cui et al. (2023), arXiv 2309.06169, as ``sample_er_sde`` of Forge Neo.

Of up to the third order; ``lambda`` is noise over signal.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from ...clock.sigma_map import PixelMap, SigmaMap
from ...run.host import NoiseSampler
from ...run.run import Run
from ..ancestral import independent_noise
from ..half_log_snr import half_log_snr

_POINTS = 200
"""Of the sums that stand for the paper's integrals."""


def er_sde(
    run: Run,
    x: Tensor,
    *,
    s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None,
    flow: bool = False,
) -> Tensor:
    """``x [B, C, H, W]`` at the first sigma (of a flow below 1) → the final latent."""
    noise_sampler = noise_sampler or independent_noise(run, x)
    (descent,) = run.host.descents
    # All at once, as the host has them, for its rounding.
    own = _lambda(torch.stack(list(descent.scalars)), flow)

    def lambda_map(sigma: SigmaMap, i: int) -> PixelMap:
        return PixelMap(own[i], _lambda(sigma.map, flow))

    def integral(what: int, sigma: SigmaMap, to: SigmaMap, i: int) -> PixelMap:
        """Of ``(lambda - lambda(sigma))**what / scale`` between the two."""

        def value(sigma: Tensor, to: Tensor) -> Tensor:
            return _integral(what, _lambda(sigma, flow), _lambda(to, flow))

        return PixelMap(_integral(what, own[i], own[i + 1]), step.between(value, sigma, to).map)

    old = old_slope = None
    for step in run:
        denoised = step.predict(x)
        step.callback(x, denoised)
        sigma, to = step.sigma, step.advance()
        if to.scalar == 0:
            x = denoised
            continue
        i, before = step.i, step.before
        now, then = lambda_map(sigma, i), lambda_map(to, i + 1)
        x_1 = step.per_pixel(partial(_first, x, denoised), sigma, to, now, then)
        noise = noise_sampler(sigma.scalar, to.scalar) if s_noise > 0 else None
        slope = None
        if i > 0:
            past = lambda_map(before[-1], i - 1)
            slope = step.per_pixel(partial(_slope, denoised, old), now, past)
            x_1 = step.per_pixel(partial(_second, x_1, slope), to, now, then, integral(0, sigma, to, i))
        if i > 1:
            levels = (now, past, lambda_map(before[-2], i - 2))
            bend = step.per_pixel(partial(_bend, slope, old_slope), *levels)
            x_1 = step.per_pixel(partial(_third, x_1, bend), to, now, then, integral(1, sigma, to, i))
        if noise is not None:
            x_1 = step.per_pixel(partial(_noised, x_1, noise, s_noise), to, now, then)
        x, old, old_slope = x_1, denoised, slope
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


def _first(x: Tensor, denoised: Tensor, sigma: Tensor, to: Tensor, now: Tensor, then: Tensor) -> Tensor:
    signal, signal_to = sigma / now, to / then
    r = _scale(then) / _scale(now)
    return signal_to / signal * r * x + signal_to * (1 - r) * denoised


def _slope(denoised: Tensor, old: Tensor, now: Tensor, past: Tensor) -> Tensor:
    # A curve may hold a pixel still for a step (piecewise linear with k = 1): no slope to go by then.
    return torch.where(now == past, 0.0, (denoised - old) / (now - past))


def _second(x: Tensor, slope: Tensor, to: Tensor, now: Tensor, then: Tensor, integral: Tensor) -> Tensor:
    return x + to / then * (then - now + integral * _scale(then)) * slope


def _bend(slope: Tensor, old_slope: Tensor, now: Tensor, past: Tensor, before: Tensor) -> Tensor:
    return torch.where((now == past) | (past == before), 0.0, (slope - old_slope) / ((now - before) / 2))


def _third(x: Tensor, bend: Tensor, to: Tensor, now: Tensor, then: Tensor, integral: Tensor) -> Tensor:
    return x + to / then * (((then - now) ** 2) / 2 + integral * _scale(then)) * bend


def _noised(x: Tensor, noise: Tensor, s_noise: float, to: Tensor, now: Tensor, then: Tensor) -> Tensor:
    r = _scale(then) / _scale(now)
    return x + to / then * noise * s_noise * (then**2 - now**2 * r**2).sqrt().nan_to_num(nan=0.0)
