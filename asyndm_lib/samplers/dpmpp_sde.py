"""DPM-Solver++ (stochastic) of Lu et al. (2022), as ``k_diffusion.sampling.sample_dpmpp_sde``."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from ..run.host import NoiseSampler
from ..run.run import Run
from .ancestral import ancestral_step
from .euler import euler_step
from .exponential import between, sigma_of, t_of


def dpmpp_sde(
    run: Run, x: Tensor, *, noise_sampler: NoiseSampler, eta: float = 1.0, s_noise: float = 1.0, r: float = 1 / 2
) -> Tensor:
    """``x [B, C, H, W]`` at the first sigma → the final latent.

    ``noise_sampler``: the host's Brownian motion, asked for the host's own noise levels. ``eta`` scales
    the noise. ``r``: where between two noise levels the second evaluation stands.
    """

    def middle(sigma: Tensor, to: Tensor) -> Tensor:
        return between(sigma, to, r)

    def first(x: Tensor, denoised: Tensor, noise: Tensor, sigma: Tensor, to: Tensor) -> Tensor:
        t = t_of(sigma)
        return _noised_step(x, denoised, noise, t, t + (t_of(to) - t) * r, eta)

    def second(x: Tensor, denoised: Tensor, noise: Tensor, sigma: Tensor, to: Tensor) -> Tensor:
        return _noised_step(x, denoised, noise, t_of(sigma), t_of(to), eta)

    fac = 1 / (2 * r)
    for step in run:
        denoised = step.predict(x)
        step.callback(x, denoised)
        sigma, sigma_next = step.sigma, step.advance()
        if sigma_next.scalar == 0:
            x = step.per_pixel(partial(euler_step, x, denoised), sigma, sigma_next)
            continue
        sigma_mid = step.between(middle, sigma, sigma_next)
        start = _rounded(sigma.scalar)
        noise = noise_sampler(start, sigma_mid.scalar) * s_noise
        x_2 = step.per_pixel(partial(first, x, denoised, noise), sigma, sigma_next)
        denoised_2 = step.predict(x_2, sigma_mid)
        noise = noise_sampler(start, _rounded(sigma_next.scalar)) * s_noise
        denoised_d = (1 - fac) * denoised + fac * denoised_2
        x = step.per_pixel(partial(second, x, denoised_d, noise), sigma, sigma_next)
    return x


def _noised_step(x: Tensor, denoised: Tensor, noise: Tensor, t: Tensor, t_next: Tensor, eta: float) -> Tensor:
    sigma = sigma_of(t)
    down, up = ancestral_step(sigma, sigma_of(t_next), eta)
    t_down = t_of(down)
    return (sigma_of(t_down) / sigma) * x - (t - t_down).expm1() * denoised + noise * up


def _rounded(sigma: Tensor) -> Tensor:
    """As it comes back from ``t``, which is how k-diffusion asks the Brownian motion."""
    return sigma_of(t_of(sigma))
