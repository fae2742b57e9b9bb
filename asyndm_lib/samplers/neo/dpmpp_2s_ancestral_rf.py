"""Ancestral sampling with DPM-Solver++(2S) steps (Lu et al. 2022) on flows: ``sample_dpmpp_2s_ancestral_RF`` of Neo."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from ...run.host import NoiseSampler
from ...run.run import Run
from ..ancestral import independent_noise
from ..euler import euler_step
from .flow_ancestral import flow_ancestral_step, renoised, toward

_BELOW_ALL_NOISE = 0.9999
"""Where the second evaluation of a step from all noise stands: that has no half log SNR to halve."""


def dpmpp_2s_ancestral_rf(
    run: Run, x: Tensor, *, eta: float = 1.0, s_noise: float = 1.0, noise_sampler: NoiseSampler | None = None
) -> Tensor:
    """``x [B, C, H, W]`` at the first sigma, at most 1 → the final latent. ``eta`` scales the noise added back."""
    noise_sampler = noise_sampler or independent_noise(run, x)

    def middle(sigma: Tensor, to: Tensor) -> Tensor:
        down, _, _ = flow_ancestral_step(sigma, to, eta)
        start, end = _half_log_snr(sigma), _half_log_snr(down)
        level = (torch.exp(start + 1 / 2 * (end - start)) + 1) ** -1
        return torch.where(sigma == 1, _BELOW_ALL_NOISE, level)

    def half(x: Tensor, denoised: Tensor, sigma: Tensor, to: Tensor) -> Tensor:
        return toward(x, denoised, sigma, middle(sigma, to))

    def whole(x: Tensor, denoised: Tensor, noise: Tensor | None, sigma: Tensor, to: Tensor) -> Tensor:
        down, signal, up = flow_ancestral_step(sigma, to, eta)
        moved = toward(x, denoised, sigma, down)
        moved = moved if noise is None else renoised(moved, noise, signal, up)
        return torch.where(sigma == to, x, moved)

    for step in run:
        denoised = step.predict(x)
        step.callback(x, denoised)
        sigma, to = step.sigma, step.advance()
        if to.scalar == 0:
            x = step.per_pixel(partial(euler_step, x, denoised), sigma, to)
            continue
        x_2 = step.per_pixel(partial(half, x, denoised), sigma, to)
        denoised_2 = step.predict(x_2, step.between(middle, sigma, to))
        noise = noise_sampler(sigma.scalar, to.scalar) * s_noise if eta > 0 else None
        x = step.per_pixel(partial(whole, x, denoised_2, noise), sigma, to)
    return x


def _half_log_snr(sigma: Tensor) -> Tensor:
    return ((1 - sigma) / sigma).log()
