"""DPM-Solver++(2M) SDE of Lu et al. (2022), as ``k_diffusion.sampling.sample_dpmpp_2m_sde``."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from ..run.host import NoiseSampler
from ..run.run import Run
from .exponential import t_of


def dpmpp_2m_sde(
    run: Run,
    x: Tensor,
    *,
    noise_sampler: NoiseSampler,
    eta: float = 1.0,
    s_noise: float = 1.0,
    solver_type: str = "midpoint",
) -> Tensor:
    """``x [B, C, H, W]`` at the first sigma → the final latent.

    ``noise_sampler``: the host's Brownian motion, asked for the host's own noise levels. ``eta`` scales
    the noise. ``solver_type``: "midpoint" or "heun".
    """
    correction = {"midpoint": _midpoint, "heun": _heun}[solver_type]
    old: Tensor | None = None
    for step in run:
        denoised = step.predict(x)
        step.callback(x, denoised)
        sigma, sigma_next = step.sigma, step.advance()
        if sigma_next.scalar == 0:
            x = denoised
        else:
            levels = (sigma, sigma_next, *step.before[-1:])
            noise = noise_sampler(sigma.scalar, sigma_next.scalar) if eta else None
            x = step.per_pixel(partial(_update, x, denoised, old, noise, eta, s_noise, correction), *levels)
        old = denoised
    return x


def _update(
    x: Tensor,
    denoised: Tensor,
    old: Tensor | None,
    noise: Tensor | None,
    eta: float,
    s_noise: float,
    correction,
    sigma: Tensor,
    to: Tensor,
    before: Tensor | None = None,
) -> Tensor:
    h = t_of(to) - t_of(sigma)
    eta_h = eta * h
    x = to / sigma * (-eta_h).exp() * x + (-h - eta_h).expm1().neg() * denoised
    if old is not None:
        r = (t_of(sigma) - t_of(before)) / h
        slope = correction(-h - eta_h) * (1 / r) * (denoised - old)
        # A curve may hold a pixel still for a step (piecewise linear with k = 1): no slope, or nothing to do, then.
        x = x + torch.where((sigma == before) | (sigma == to), 0.0, slope)
    if noise is not None:
        x = x + noise * to * (-2 * eta_h).expm1().neg().sqrt() * s_noise
    return x


def _midpoint(hh: Tensor) -> Tensor:
    return 0.5 * hh.expm1().neg()


def _heun(hh: Tensor) -> Tensor:
    return hh.expm1().neg() / hh + 1
