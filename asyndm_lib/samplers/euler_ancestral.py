"""Ancestral sampling with Euler steps, as ``k_diffusion.sampling.sample_euler_ancestral``."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from ..run.host import NoiseSampler
from ..run.run import Run
from .ancestral import ancestral_step, independent_noise
from .euler import euler_step


def euler_ancestral(
    run: Run, x: Tensor, *, eta: float = 1.0, s_noise: float = 1.0, noise_sampler: NoiseSampler | None = None
) -> Tensor:
    """``x [B, C, H, W]`` at the first sigma → the final latent. ``eta`` scales the noise added back."""
    noise_sampler = noise_sampler or independent_noise(run, x)
    for step in run:
        denoised = step.predict(x)
        step.callback(x, denoised)
        sigma_next = step.advance()
        noise = None
        if sigma_next.scalar > 0:
            noise = noise_sampler(step.sigma.scalar, sigma_next.scalar) * s_noise
        x = step.per_pixel(partial(_update, x, denoised, noise, eta), step.sigma, sigma_next)
    return x


def _update(x: Tensor, denoised: Tensor, noise: Tensor | None, eta: float, sigma: Tensor, to: Tensor) -> Tensor:
    down, up = ancestral_step(sigma, to, eta)
    x = euler_step(x, denoised, sigma, down)
    return x if noise is None else x + noise * up
