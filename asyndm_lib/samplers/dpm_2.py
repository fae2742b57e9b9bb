"""DPM-Solver-2 (Lu et al. 2022) after Karras et al. (2022), as k-diffusion's ``sample_dpm_2``, also ancestral."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor

from ..run.host import NoiseSampler
from ..run.run import Run
from .ancestral import ancestral_step, independent_noise
from .churn import Churn
from .euler import euler_step


def dpm_2(run: Run, x: Tensor, **noise: Any) -> Tensor:
    """``x [B, C, H, W]`` at the first sigma → the final latent. ``noise``: see :class:`churn.Churn`."""
    churn = Churn(run, **noise)
    for step in run:
        x, sigma_hat = churn(step, x)
        denoised = step.predict(x, sigma_hat)
        step.callback(x, denoised, sigma_hat.scalar)
        sigma_next = step.advance()
        if sigma_next.scalar == 0:
            x = step.per_pixel(partial(euler_step, x, denoised), sigma_hat, sigma_next)
            continue
        sigma_mid = step.between(_middle, sigma_hat, sigma_next)
        x_2 = step.per_pixel(partial(euler_step, x, denoised), sigma_hat, sigma_mid)
        denoised_2 = step.predict(x_2, sigma_mid)
        x = step.per_pixel(partial(_along, x, x_2, denoised_2), sigma_hat, sigma_next, sigma_mid)
    return x


def dpm_2_ancestral(
    run: Run, x: Tensor, *, eta: float = 1.0, s_noise: float = 1.0, noise_sampler: NoiseSampler | None = None
) -> Tensor:
    """``x [B, C, H, W]`` at the first sigma → the final latent. ``eta`` scales the noise added back."""
    noise_sampler = noise_sampler or independent_noise(run, x)

    def down(sigma: Tensor, to: Tensor) -> Tensor:
        return ancestral_step(sigma, to, eta)[0]

    def above(sigma: Tensor, to: Tensor) -> Tensor:
        return _middle(sigma, down(sigma, to))

    def update(x: Tensor, x_2: Tensor, denoised_2: Tensor, noise: Tensor, *sigmas: Tensor) -> Tensor:
        sigma, to, sigma_mid = sigmas
        down, up = ancestral_step(sigma, to, eta)
        return _along(x, x_2, denoised_2, sigma, down, sigma_mid) + noise * up

    for step in run:
        denoised = step.predict(x)
        step.callback(x, denoised)
        sigma_next = step.advance()
        if down(step.sigma.scalar, sigma_next.scalar) == 0:
            sigma_down = step.between(down, step.sigma, sigma_next)
            x = step.per_pixel(partial(euler_step, x, denoised), step.sigma, sigma_down)
            continue
        sigma_mid = step.between(above, step.sigma, sigma_next)
        x_2 = step.per_pixel(partial(euler_step, x, denoised), step.sigma, sigma_mid)
        denoised_2 = step.predict(x_2, sigma_mid)
        noise = noise_sampler(step.sigma.scalar, sigma_next.scalar) * s_noise
        x = step.per_pixel(partial(update, x, x_2, denoised_2, noise), step.sigma, sigma_next, sigma_mid)
    return x


def _middle(sigma: Tensor, to: Tensor) -> Tensor:
    """Half way in log sigma."""
    return sigma.log().lerp(to.log(), 0.5).exp()


def _along(x: Tensor, x_2: Tensor, denoised_2: Tensor, sigma: Tensor, to: Tensor, sigma_mid: Tensor) -> Tensor:
    """From ``sigma`` to ``to`` with the slope at ``sigma_mid``."""
    return x + (x_2 - denoised_2) / sigma_mid * (to - sigma)
