"""Ancestral sampling with DPM-Solver++(2S) second-order steps."""

from __future__ import annotations

import torch
from torch import Tensor

from ..run.host import NoiseSampler
from ..run.run import Run
from .ancestral import ancestral_step, independent_noise
from .euler import euler_step
from .exponential import exponential_step, sigma_of, t_of
from .row import Sampler


def dpmpp_2s_ancestral(
    run: Run, x: Tensor, *, eta: float = 1.0, s_noise: float = 1.0, noise_sampler: NoiseSampler | None = None
) -> Tensor:
    """Ancestral sampling with DPM-Solver++(2S) steps of Lu et al. (2022).

    ``eta`` scales the noise added back.
    """
    noise_sampler = noise_sampler or independent_noise(run, x)

    def sigma_down(sigma: Tensor, sigma_next: Tensor) -> Tensor:
        return ancestral_step(sigma, sigma_next, eta)[0]

    def half_way(sigma: Tensor, sigma_next: Tensor) -> Tensor:
        """How far the second evaluation of a step is in ``t``.

        There is no half of the way to 0. A pixel's second evaluation is at its own level then.
        """
        h = (t_of(sigma_down(sigma, sigma_next)) - t_of(sigma)) * (1 / 2)
        return torch.where(h.isinf(), 0.0, h)

    def middle(sigma: Tensor, sigma_next: Tensor) -> Tensor:
        return sigma_of(t_of(sigma) + half_way(sigma, sigma_next))

    for step in run:
        denoised = step.predict(x)
        step.callback(x, denoised)
        sigma, sigma_next = step.sigma, step.advance()
        if sigma_down(sigma.scalar, sigma_next.scalar) == 0:

            def euler(sigma: Tensor, sigma_next: Tensor) -> Tensor:
                return euler_step(x, denoised, sigma, sigma_down(sigma, sigma_next))

            x = step.per_pixel(euler, sigma, sigma_next)
        else:

            def half(sigma: Tensor, sigma_next: Tensor) -> Tensor:
                t, h = t_of(sigma), half_way(sigma, sigma_next)
                return exponential_step(x, denoised, t, t + h, h)

            x_2 = step.per_pixel(half, sigma, sigma_next)
            denoised_2 = step.predict(x_2, step.between(middle, sigma, sigma_next))

            def whole(sigma: Tensor, sigma_next: Tensor) -> Tensor:
                t, t_next = t_of(sigma), t_of(sigma_down(sigma, sigma_next))
                return exponential_step(x, denoised_2, t, t_next, t_next - t)

            x = step.per_pixel(whole, sigma, sigma_next)
        if sigma_next.scalar > 0:
            noise = noise_sampler(sigma.scalar, sigma_next.scalar) * s_noise
            x = step.per_pixel(lambda sigma, to: x + noise * ancestral_step(sigma, to, eta)[1], sigma, sigma_next)
    return x


ROWS = (
    Sampler(
        "sample_dpmpp_2s_ancestral", dpmpp_2s_ancestral, {"DPM++ 2S a": {}}, noise="independent", schedule="karras"
    ),
)
