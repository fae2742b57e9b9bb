"""Ancestral sampling between any two noise levels, Forge's ``sample_ddpm``."""

from __future__ import annotations

from torch import Tensor

from ..run.host import NoiseSampler
from ..run.run import Run
from .ancestral import independent_noise
from .euler import to_d
from .row import Sampler


def ddpm(run: Run, x: Tensor, *, noise_sampler: NoiseSampler | None = None) -> Tensor:
    """Ancestral sampling of Ho et al. (2020, algorithm 2)."""
    noise_sampler = noise_sampler or independent_noise(run, x)
    for step in run:
        denoised = step.predict(x)
        step.callback(x, denoised)
        sigma, sigma_next = step.sigma, step.advance()
        noise = noise_sampler(sigma.scalar, sigma_next.scalar) if sigma_next.scalar > 0 else None

        def update(sigma: Tensor, sigma_next: Tensor) -> Tensor:
            eps = to_d(x, denoised, sigma)
            a, a_next = 1 / ((sigma * sigma) + 1), 1 / ((sigma_next * sigma_next) + 1)
            ratio = a / a_next
            scaled = x / (1.0 + sigma**2.0).sqrt()
            mean = (1.0 / ratio).sqrt() * (scaled - (1 - ratio) * eps / (1 - a).sqrt())
            if noise is None:
                return mean
            added = ((1 - ratio) * (1.0 - a_next) / (1.0 - a)).sqrt() * noise
            return (mean + added) * (1.0 + sigma_next**2.0).sqrt()

        x = step.per_pixel(update, sigma, sigma_next)
    return x


ROWS = (Sampler("sample_ddpm", ddpm, {"DDPM": {}}, ("a1111", "forge", "classic"), noise="unseeded"),)
