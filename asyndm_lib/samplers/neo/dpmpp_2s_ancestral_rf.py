"""Ancestral sampling with DPM-Solver++(2S) second-order steps on flows."""

from __future__ import annotations

import torch
from torch import Tensor

from ...run.host import NoiseSampler
from ...run.run import Run
from ..ancestral import independent_noise
from ..euler import euler_step
from ..flow_ancestral import flow_ancestral_euler, flow_ancestral_step, toward
from ..row import Sampler

_BELOW_ALL_NOISE = 0.9999
"""Where the second evaluation of a step from all noise stands.

All noise has no half log SNR to halve.
"""


def dpmpp_2s_ancestral_rf(
    run: Run, x: Tensor, *, eta: float = 1.0, s_noise: float = 1.0, noise_sampler: NoiseSampler | None = None
) -> Tensor:
    """Ancestral sampling with DPM-Solver++(2S) steps of Lu et al. (2022) on a flow.

    It begins at a sigma of at most 1. ``eta`` scales the noise added back.
    """
    noise_sampler = noise_sampler or independent_noise(run, x)

    def middle(sigma: Tensor, sigma_next: Tensor) -> Tensor:
        sigma_down, _, _ = flow_ancestral_step(sigma, sigma_next, eta)
        lambda_s, lambda_t = (((1 - level) / level).log() for level in (sigma, sigma_down))
        level = (torch.exp(lambda_s + 1 / 2 * (lambda_t - lambda_s)) + 1) ** -1
        return torch.where(sigma == 1, _BELOW_ALL_NOISE, level)

    for step in run:
        denoised = step.predict(x)
        step.callback(x, denoised)
        sigma, sigma_next = step.sigma, step.advance()
        if sigma_next.scalar == 0:
            x = step.per_pixel(lambda sigma, to: euler_step(x, denoised, sigma, to), sigma, sigma_next)
            continue
        x_2 = step.per_pixel(lambda sigma, to: toward(x, denoised, sigma, middle(sigma, to)), sigma, sigma_next)
        denoised_2 = step.predict(x_2, step.between(middle, sigma, sigma_next))
        noise = noise_sampler(sigma.scalar, sigma_next.scalar) * s_noise if eta > 0 else None

        def update(sigma: Tensor, sigma_next: Tensor) -> Tensor:
            return flow_ancestral_euler(x, denoised_2, noise, sigma, sigma_next, eta)

        x = step.per_pixel(update, sigma, sigma_next)
    return x


ROWS = (
    Sampler(
        "sample_dpmpp_2s_ancestral_RF",
        dpmpp_2s_ancestral_rf,
        {"DPM++ 2s a RF": {}},
        ("neo",),
        noise="independent",
        only_for_flows="the sampler 'DPM++ 2s a RF' is for rectified flow models only; use another one",
    ),
)
