"""Ancestral sampling with Euler steps, as ``k_diffusion.sampling.sample_euler_ancestral``."""

from __future__ import annotations

from functools import partial

from torch import Tensor, minimum

from ..host import NoiseSampler
from ..run import Run


def ancestral_step(sigma: Tensor, sigma_next: Tensor, eta: float) -> tuple[Tensor, Tensor | float]:
    """The noise level to step down to, and how much noise to add to arrive at ``sigma_next``; element by element."""
    if not eta:
        return sigma_next, 0.0
    up = minimum(sigma_next, eta * (sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2) ** 0.5)
    return (sigma_next**2 - up**2) ** 0.5, up


def euler_ancestral(
    run: Run, x: Tensor, *, eta: float = 1.0, s_noise: float = 1.0, noise_sampler: NoiseSampler | None = None
) -> Tensor:
    """``x [B, C, H, W]`` at the first sigma → the final latent. ``eta`` scales the noise added back."""
    noise_sampler = noise_sampler or (lambda sigma, sigma_next: run.host.randn_like(x))
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
    x = x + (x - denoised) / sigma * (down - sigma)
    return x if noise is None else x + noise * up
