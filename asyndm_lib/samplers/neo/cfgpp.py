"""CFG++ (Chung et al. 2024): steps to the guided picture, noised again by the unconditional prediction.

As ``sample_euler_cfg_pp``, ``sample_euler_ancestral_cfg_pp`` and ``sample_dpmpp_2m_cfg_pp`` of Forge Neo. A curve may
hold a pixel still for a step (piecewise linear with k = 1): it stays, where these formulas would push it by the
guidance.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from ...run.host import NoiseSampler
from ...run.run import Run
from ..ancestral import ancestral_step, independent_noise
from ..exponential import t_of
from ..half_log_snr import half_log_snr, signal


def euler_cfgpp(run: Run, x: Tensor, *, flow: bool = False) -> Tensor:
    """``x [B, C, H, W]`` at the first sigma → the final latent."""
    return euler_ancestral_cfgpp(run, x, eta=0.0, flow=flow)


def euler_ancestral_cfgpp(
    run: Run,
    x: Tensor,
    *,
    eta: float = 1.0,
    s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None,
    flow: bool = False,
) -> Tensor:
    """As :func:`euler_cfgpp`; ``eta`` scales the noise added back."""
    noise_sampler = noise_sampler or independent_noise(run, x)

    def update(
        x: Tensor, denoised: Tensor, unconditional: Tensor, noise: Tensor | None, sigma: Tensor, to: Tensor
    ) -> Tensor:
        scale, scale_to = (signal(level, half_log_snr(level, flow)) for level in (sigma, to))
        slope = (x - scale * unconditional) / sigma
        down, up = ancestral_step(sigma / scale, to / scale_to, eta)
        moved = scale_to * denoised + scale_to * down * slope
        if noise is not None:
            moved = moved + scale_to * noise * s_noise * up
        return torch.where(sigma == to, x, moved)

    for step in run:
        denoised = step.predict(x)
        unconditional = run.host.unconditional()
        step.callback(x, denoised)
        sigma, to = step.sigma, step.advance()
        if to.scalar == 0:
            x = denoised
            continue
        noise = noise_sampler(sigma.scalar, to.scalar) if eta > 0 and s_noise > 0 else None
        x = step.per_pixel(partial(update, x, denoised, unconditional, noise), sigma, to)
    return x


def dpmpp_2m_cfgpp(run: Run, x: Tensor) -> Tensor:
    """DPM-Solver++(2M) (Lu et al. 2022) in this form; ``x [B, C, H, W]`` at the first sigma → the final latent."""
    old: Tensor | None = None
    for step in run:
        denoised = step.predict(x)
        unconditional = run.host.unconditional()
        step.callback(x, denoised)
        sigma, to = step.sigma, step.advance()
        past = step.before[-1:] if to.scalar > 0 else ()
        x = step.per_pixel(partial(_multistep, x, denoised, unconditional, old), sigma, to, *past)
        old = unconditional
    return x


def _multistep(
    x: Tensor,
    denoised: Tensor,
    unconditional: Tensor,
    old: Tensor | None,
    sigma: Tensor,
    to: Tensor,
    before: Tensor | None = None,
) -> Tensor:
    t = t_of(sigma)
    h = t_of(to) - t
    towards = -torch.exp(-h) * unconditional
    if before is not None:
        r = (t - t_of(before)) / h
        slope = torch.expm1(-h) * (1 / (2 * r)) * (denoised - old)
        towards = towards - torch.where(sigma == before, 0.0, slope)
    return torch.where(sigma == to, x, denoised + towards + torch.exp(-h) * x)
