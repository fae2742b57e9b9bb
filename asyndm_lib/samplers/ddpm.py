"""Ancestral sampling of Ho et al. (2020, algorithm 2) between any two noise levels, as Forge's ``sample_ddpm``."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from ..run.host import NoiseSampler
from ..run.run import Run
from .ancestral import independent_noise


def ddpm(run: Run, x: Tensor, *, noise_sampler: NoiseSampler | None = None) -> Tensor:
    """``x [B, C, H, W]`` at the first sigma → the final latent."""
    noise_sampler = noise_sampler or independent_noise(run, x)
    for step in run:
        denoised = step.predict(x)
        step.callback(x, denoised)
        sigma_next = step.advance()
        noise = noise_sampler(step.sigma.scalar, sigma_next.scalar) if sigma_next.scalar > 0 else None
        x = step.per_pixel(partial(_update, x, denoised, noise), step.sigma, sigma_next)
    return x


def _update(x: Tensor, denoised: Tensor, noise: Tensor | None, sigma: Tensor, to: Tensor) -> Tensor:
    eps = (x - denoised) / sigma
    a, a_next = 1 / ((sigma * sigma) + 1), 1 / ((to * to) + 1)
    ratio = a / a_next
    scaled = x / (1.0 + sigma**2.0).sqrt()
    mean = (1.0 / ratio).sqrt() * (scaled - (1 - ratio) * eps / (1 - a).sqrt())
    if noise is None:
        return mean
    return (mean + ((1 - ratio) * (1.0 - a_next) / (1.0 - a)).sqrt() * noise) * (1.0 + to**2.0).sqrt()
