"""DPM-Solver++ (stochastic)."""

from __future__ import annotations

from torch import Tensor

from ..run.host import NoiseSampler
from ..run.run import Run
from .ancestral import ancestral_step
from .euler import euler_step
from .exponential import between, sigma_of, t_of
from .row import Sampler


def dpmpp_sde(
    run: Run, x: Tensor, *, noise_sampler: NoiseSampler, eta: float = 1.0, s_noise: float = 1.0, r: float = 1 / 2
) -> Tensor:
    """DPM-Solver++ (stochastic) of Lu et al. (2022).

    ``r``: where the second evaluation of a step stands.
    """

    def middle(sigma: Tensor, sigma_next: Tensor) -> Tensor:
        return between(sigma, sigma_next, r)

    def noised_step(x: Tensor, denoised: Tensor, noise: Tensor, t: Tensor, t_next: Tensor) -> Tensor:
        sigma = sigma_of(t)
        sigma_down, sigma_up = ancestral_step(sigma, sigma_of(t_next), eta)
        t_down = t_of(sigma_down)
        return (sigma_of(t_down) / sigma) * x - (t - t_down).expm1() * denoised + noise * sigma_up

    fac = 1 / (2 * r)
    for step in run:
        denoised = step.predict(x)
        step.callback(x, denoised)
        sigma, sigma_next = step.sigma, step.advance()
        if sigma_next.scalar == 0:
            x = step.per_pixel(lambda sigma, to: euler_step(x, denoised, sigma, to), sigma, sigma_next)
            continue

        # Step 1
        sigma_mid = step.between(middle, sigma, sigma_next)
        start = _rounded(sigma.scalar)
        noise = noise_sampler(start, sigma_mid.scalar) * s_noise

        def first(sigma: Tensor, sigma_next: Tensor) -> Tensor:
            t = t_of(sigma)
            return noised_step(x, denoised, noise, t, t + (t_of(sigma_next) - t) * r)

        x_2 = step.per_pixel(first, sigma, sigma_next)
        denoised_2 = step.predict(x_2, sigma_mid)

        # Step 2
        noise = noise_sampler(start, _rounded(sigma_next.scalar)) * s_noise
        denoised_d = (1 - fac) * denoised + fac * denoised_2

        def second(sigma: Tensor, sigma_next: Tensor) -> Tensor:
            return noised_step(x, denoised_d, noise, t_of(sigma), t_of(sigma_next))

        x = step.per_pixel(second, sigma, sigma_next)
    return x


def _rounded(sigma: Tensor) -> Tensor:
    """``sigma`` as it comes back from ``t``, which is how k-diffusion asks the Brownian motion."""
    return sigma_of(t_of(sigma))


ROWS = (Sampler("sample_dpmpp_sde", dpmpp_sde, {"DPM++ SDE": {}}, noise="Brownian", schedule="karras", benched=True),)
