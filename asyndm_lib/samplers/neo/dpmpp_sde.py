"""DPM-Solver++ (stochastic) of Lu et al. (2022) in half log SNR, as ``sample_dpmpp_sde`` of Forge Neo."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from ...run.host import NoiseSampler
from ...run.run import Run
from ..ancestral import ancestral_step
from ..half_log_snr import half_log_snr, sigma_at, signal


def dpmpp_sde(
    run: Run,
    x: Tensor,
    *,
    noise_sampler: NoiseSampler,
    eta: float = 1.0,
    s_noise: float = 1.0,
    r: float = 1 / 2,
    flow: bool = False,
) -> Tensor:
    """``x [B, C, H, W]`` at the first sigma (of a flow below 1) → the final latent.

    ``noise_sampler``: the host's Brownian motion, asked for the host's own noise levels. ``eta`` scales
    the noise. ``r``: where between two noise levels the second evaluation stands.
    """

    def inner(sigma: Tensor, to: Tensor) -> Tensor:
        start = half_log_snr(sigma, flow)
        return start + r * (half_log_snr(to, flow) - start)

    def middle(sigma: Tensor, to: Tensor) -> Tensor:
        return sigma_at(inner(sigma, to), flow)

    def first(x: Tensor, denoised: Tensor, noise: Tensor | None, sigma: Tensor, to: Tensor) -> Tensor:
        start, end = half_log_snr(sigma, flow), inner(sigma, to)
        return _noised_step(x, denoised, noise, s_noise, eta, (sigma, start), (sigma_at(end, flow), end))

    def second(x: Tensor, denoised: Tensor, noise: Tensor | None, sigma: Tensor, to: Tensor) -> Tensor:
        levels = [(level, half_log_snr(level, flow)) for level in (sigma, to)]
        return _noised_step(x, denoised, noise, s_noise, eta, *levels)

    fac = 1 / (2 * r)
    noisy = eta > 0 and s_noise > 0
    for step in run:
        denoised = step.predict(x)
        step.callback(x, denoised)
        sigma, to = step.sigma, step.advance()
        if to.scalar == 0:
            x = denoised
            continue
        sigma_mid = step.between(middle, sigma, to)
        noise = noise_sampler(sigma.scalar, sigma_mid.scalar) if noisy else None
        x_2 = step.per_pixel(partial(first, x, denoised, noise), sigma, to)
        denoised_2 = step.predict(x_2, sigma_mid)
        noise = noise_sampler(sigma.scalar, to.scalar) if noisy else None
        denoised_d = (1 - fac) * denoised + fac * denoised_2
        x = step.per_pixel(partial(second, x, denoised_d, noise), sigma, to)
    return x


def _noised_step(
    x: Tensor,
    denoised: Tensor,
    noise: Tensor | None,
    s_noise: float,
    eta: float,
    now: tuple[Tensor, Tensor],
    to: tuple[Tensor, Tensor],
) -> Tensor:
    """``now``, ``to``: noise levels as sigma and as half log SNR."""
    scale, scale_to = signal(*now), signal(*to)
    down, up = ancestral_step(now[1].neg().exp(), to[1].neg().exp(), eta)
    h = down.log().neg() - now[1]
    x = (scale_to / scale) * (-h).exp() * x - scale_to * (-h).expm1() * denoised
    return x if noise is None else x + scale_to * noise * s_noise * up
