"""Ancestral sampling with DPM-Solver++(2S) steps (Lu et al. 2022), as k-diffusion's ``sample_dpmpp_2s_ancestral``."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from ..run.host import NoiseSampler
from ..run.run import Run
from .ancestral import ancestral_step, independent_noise
from .euler import euler_step
from .exponential import between, exponential_step


def dpmpp_2s_ancestral(
    run: Run, x: Tensor, *, eta: float = 1.0, s_noise: float = 1.0, noise_sampler: NoiseSampler | None = None
) -> Tensor:
    """``x [B, C, H, W]`` at the first sigma → the final latent. ``eta`` scales the noise added back."""
    noise_sampler = noise_sampler or independent_noise(run, x)

    def down(sigma: Tensor, to: Tensor) -> Tensor:
        return ancestral_step(sigma, to, eta)[0]

    def middle(sigma: Tensor, to: Tensor) -> Tensor:
        return between(sigma, down(sigma, to), 1 / 2)

    def half(x: Tensor, denoised: Tensor, sigma: Tensor, to: Tensor) -> Tensor:
        return exponential_step(x, denoised, sigma, down(sigma, to), 1 / 2)

    def whole(x: Tensor, denoised: Tensor, sigma: Tensor, to: Tensor) -> Tensor:
        return exponential_step(x, denoised, sigma, down(sigma, to))

    def straight(x: Tensor, denoised: Tensor, sigma: Tensor, to: Tensor) -> Tensor:
        return euler_step(x, denoised, sigma, down(sigma, to))

    def noised(x: Tensor, noise: Tensor, sigma: Tensor, to: Tensor) -> Tensor:
        return x + noise * ancestral_step(sigma, to, eta)[1]

    for step in run:
        denoised = step.predict(x)
        step.callback(x, denoised)
        sigma, sigma_next = step.sigma, step.advance()
        if down(sigma.scalar, sigma_next.scalar) == 0:
            x = step.per_pixel(partial(straight, x, denoised), sigma, sigma_next)
        else:
            x_2 = step.per_pixel(partial(half, x, denoised), sigma, sigma_next)
            denoised_2 = step.predict(x_2, step.between(middle, sigma, sigma_next))
            x = step.per_pixel(partial(whole, x, denoised_2), sigma, sigma_next)
        if sigma_next.scalar > 0:
            noise = noise_sampler(sigma.scalar, sigma_next.scalar) * s_noise
            x = step.per_pixel(partial(noised, x, noise), sigma, sigma_next)
    return x
