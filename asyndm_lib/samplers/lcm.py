"""Multistep consistency sampling of latent consistency models (Luo et al. 2023), as the WebUI's ``sample_lcm``."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from ..run.host import NoiseSampler
from ..run.run import Run
from .ancestral import independent_noise


def lcm(run: Run, x: Tensor, *, noise_sampler: NoiseSampler | None = None, flow: bool = False) -> Tensor:
    """``x [B, C, H, W]`` at the first sigma → the final latent: denoised and noised again, each pixel to its level.

    ``flow``: the model is one of ``x = (1 - sigma) picture + sigma noise``.
    """
    noise_sampler = noise_sampler or independent_noise(run, x)
    for step in run:
        denoised = step.predict(x)
        step.callback(x, denoised)
        sigma, sigma_next = step.sigma, step.advance()
        x = denoised
        if sigma_next.scalar > 0:
            noise = noise_sampler(sigma.scalar, sigma_next.scalar)
            x = step.per_pixel(partial(_flow_noised if flow else _noised, denoised, noise), sigma_next)
    return x


def _noised(denoised: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    return denoised + sigma * noise


def _flow_noised(denoised: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    return sigma * noise + (1.0 - sigma) * denoised
