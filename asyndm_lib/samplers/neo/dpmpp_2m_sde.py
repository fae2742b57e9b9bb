"""DPM-Solver++(2M) SDE of Lu et al. (2022) in half log SNR, as ``sample_dpmpp_2m_sde`` of Forge Neo."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from ...run.host import NoiseSampler
from ...run.run import Run
from ..half_log_snr import half_log_snr, signal


def dpmpp_2m_sde(
    run: Run, x: Tensor, *, noise_sampler: NoiseSampler, eta: float = 1.0, s_noise: float = 1.0, flow: bool = False
) -> Tensor:
    """``x [B, C, H, W]`` at the first sigma (of a flow below 1) → the final latent, by the midpoint rule.

    ``noise_sampler``: the host's Brownian motion, asked for the host's own noise levels. ``eta`` scales the noise.
    """

    def update(
        x: Tensor,
        denoised: Tensor,
        old: Tensor | None,
        noise: Tensor | None,
        sigma: Tensor,
        to: Tensor,
        before: Tensor | None = None,
    ) -> Tensor:
        start, end = half_log_snr(sigma, flow), half_log_snr(to, flow)
        h = end - start
        h_eta = h * (eta + 1)
        scale = signal(to, end)
        x = to / sigma * (-h * eta).exp() * x + scale * (-h_eta).expm1().neg() * denoised
        if old is not None:
            r = (start - half_log_snr(before, flow)) / h
            slope = 0.5 * scale * (-h_eta).expm1().neg() * (1 / r) * (denoised - old)
            # A curve may hold a pixel still for a step (piecewise linear with k = 1): no slope, or nothing to do, then.
            x = x + torch.where((sigma == before) | (sigma == to), 0.0, slope)
        if noise is not None:
            x = x + noise * to * (-2 * h * eta).expm1().neg().sqrt() * s_noise
        return x

    old: Tensor | None = None
    for step in run:
        denoised = step.predict(x)
        step.callback(x, denoised)
        sigma, to = step.sigma, step.advance()
        if to.scalar == 0:
            x = denoised
        else:
            noise = noise_sampler(sigma.scalar, to.scalar) if eta > 0 and s_noise > 0 else None
            x = step.per_pixel(partial(update, x, denoised, old, noise), sigma, to, *step.before[-1:])
        old = denoised
    return x
