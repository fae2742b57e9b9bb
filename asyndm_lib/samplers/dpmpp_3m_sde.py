"""DPM-Solver++(3M) SDE (Lu et al. 2022, Crowson), as ``k_diffusion.sampling.sample_dpmpp_3m_sde``."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from ..run.host import NoiseSampler
from ..run.run import Run
from .exponential import t_of


def dpmpp_3m_sde(
    run: Run, x: Tensor, *, noise_sampler: NoiseSampler, eta: float = 1.0, s_noise: float = 1.0
) -> Tensor:
    """``x [B, C, H, W]`` at the first sigma → the final latent.

    ``noise_sampler``: the host's Brownian motion, asked for the host's own noise levels. ``eta`` scales the noise.
    """
    earlier: list[Tensor] = []
    for step in run:
        denoised = step.predict(x)
        step.callback(x, denoised)
        sigma, sigma_next = step.sigma, step.advance()
        if sigma_next.scalar == 0:
            x = denoised
        else:
            noise = noise_sampler(sigma.scalar, sigma_next.scalar) if eta else None
            levels = (sigma, sigma_next, *reversed(step.before[-2:]))
            x = step.per_pixel(partial(_update, x, denoised, earlier, noise, eta, s_noise), *levels)
        earlier = [denoised, *earlier[:1]]
    return x


def _update(
    x: Tensor,
    denoised: Tensor,
    earlier: list[Tensor],
    noise: Tensor | None,
    eta: float,
    s_noise: float,
    sigma: Tensor,
    to: Tensor,
    *before: Tensor,
) -> Tensor:
    h = t_of(to) - t_of(sigma)
    h_eta = h * (eta + 1)
    x = torch.exp(-h_eta) * x + (-h_eta).expm1().neg() * denoised
    if earlier:
        x = _corrected(x, denoised, earlier, h, h_eta, sigma, *before)
    if noise is not None:
        x = x + noise * to * (-2 * h * eta).expm1().neg().sqrt() * s_noise
    return x


def _corrected(
    x: Tensor,
    denoised: Tensor,
    earlier: list[Tensor],
    h: Tensor,
    h_eta: Tensor,
    sigma: Tensor,
    before: Tensor,
    before_that: Tensor | None = None,
) -> Tensor:
    """``x`` after a step in which ``denoised`` goes on as it went over the last two or three noise levels."""
    h_1 = t_of(sigma) - t_of(before)
    r0 = h_1 / h
    d1_0 = (denoised - earlier[0]) / r0
    phi_2 = h_eta.neg().expm1() / h_eta + 1
    # A curve may hold a pixel still for a step (piecewise linear with k = 1): fewer levels to go by, or none, then.
    second = torch.where((h_1 == 0) | (h == 0), x, x + phi_2 * d1_0)
    if before_that is None:
        return second
    h_2 = t_of(before) - t_of(before_that)
    r1 = h_2 / h
    d1_1 = (earlier[0] - earlier[1]) / r1
    d1 = d1_0 + (d1_0 - d1_1) * r0 / (r0 + r1)
    d2 = (d1_0 - d1_1) / (r0 + r1)
    phi_3 = phi_2 / h_eta - 0.5
    third = x + phi_2 * d1 - phi_3 * d2
    return torch.where((h_1 == 0) | (h_2 == 0) | (h == 0), second, third)
