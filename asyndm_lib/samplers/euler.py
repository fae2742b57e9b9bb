"""Algorithm 2 (Euler steps) of Karras et al. (2022), as ``k_diffusion.sampling.sample_euler``."""

from __future__ import annotations

from functools import partial
from math import inf

import torch
from torch import Tensor

from ..run import Run


def euler(
    run: Run, x: Tensor, *, s_churn: float = 0.0, s_tmin: float = 0.0, s_tmax: float = inf, s_noise: float = 1.0
) -> Tensor:
    """``x [B, C, H, W]`` at the first sigma → the final latent. ``s_churn`` adds noise before each evaluation."""
    gamma = min(s_churn / run.host.schedule.evaluations, 2**0.5 - 1)

    def churned(sigma: Tensor) -> Tensor:
        within = (s_tmin <= sigma) & (sigma <= s_tmax)
        return torch.where(within, sigma * (gamma + 1), sigma)

    for step in run:
        noise = run.host.randn_like(x) * s_noise
        sigma_hat = step.sigma
        if gamma > 0:
            sigma_hat = step.sigma.apply(churned)
            x = step.per_pixel(partial(_churn, x, noise), step.sigma, sigma_hat)
        denoised = step.predict(x, sigma_hat)
        step.callback(x, denoised, sigma_hat.scalar)
        x = step.per_pixel(partial(_update, x, denoised), sigma_hat, step.advance())
    return x


def _churn(x: Tensor, noise: Tensor, sigma: Tensor, sigma_hat: Tensor) -> Tensor:
    return x + noise * (sigma_hat**2 - sigma**2) ** 0.5


def _update(x: Tensor, denoised: Tensor, sigma_hat: Tensor, to: Tensor) -> Tensor:
    return x + (x - denoised) / sigma_hat * (to - sigma_hat)
