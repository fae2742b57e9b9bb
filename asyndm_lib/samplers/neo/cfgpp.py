"""CFG++: steps to the guided picture, noised again by the unconditional prediction.

A curve may hold a pixel still for a step (piecewise linear with ``k = 1``). It stays then, where
these formulas would push it by the guidance.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...run.host import NoiseSampler
from ...run.run import Run
from ..ancestral import ancestral_step, independent_noise
from ..exponential import t_of
from ..half_log_snr import half_log_snr, signal
from ..row import Sampler


def euler_cfgpp(run: Run, x: Tensor, *, flow: bool = False) -> Tensor:
    """Euler steps in the CFG++ form of Chung et al. (2024)."""
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
    """Ancestral sampling with Euler steps in the CFG++ form.

    ``eta`` scales the noise added back.
    """
    noise_sampler = noise_sampler or independent_noise(run, x)
    for step in run:
        denoised = step.predict(x)
        uncond_denoised = run.host.unconditional()
        step.callback(x, denoised)
        sigma, sigma_next = step.sigma, step.advance()
        if sigma_next.scalar == 0:
            x = denoised
            continue
        noise = noise_sampler(sigma.scalar, sigma_next.scalar) if eta > 0 and s_noise > 0 else None

        def update(sigma: Tensor, sigma_next: Tensor) -> Tensor:
            alpha_s, alpha_t = (signal(level, half_log_snr(level, flow)) for level in (sigma, sigma_next))
            d = (x - alpha_s * uncond_denoised) / sigma
            sigma_down, sigma_up = ancestral_step(sigma / alpha_s, sigma_next / alpha_t, eta)
            new = alpha_t * denoised + alpha_t * sigma_down * d
            if noise is not None:
                new = new + alpha_t * noise * s_noise * sigma_up
            return torch.where(sigma == sigma_next, x, new)

        x = step.per_pixel(update, sigma, sigma_next)
    return x


def dpmpp_2m_cfgpp(run: Run, x: Tensor) -> Tensor:
    """DPM-Solver++(2M) of Lu et al. (2022) in the CFG++ form."""
    old_uncond_denoised: Any = None
    for step in run:
        denoised = step.predict(x)
        uncond_denoised = run.host.unconditional()
        step.callback(x, denoised)
        sigma_next = step.advance()

        def update(sigma: Tensor, sigma_next: Tensor, sigma_last: Tensor | None = None) -> Tensor:
            t = t_of(sigma)
            h = t_of(sigma_next) - t
            denoised_mix = -torch.exp(-h) * uncond_denoised
            if sigma_last is not None:
                t_last = t_of(sigma_last)
                r = (t - t_last) / h
                slope = torch.expm1(-h) * (1 / (2 * r)) * (denoised - old_uncond_denoised)
                denoised_mix = step.if_distinct([t, t_last], denoised_mix - slope, denoised_mix)
            return torch.where(sigma == sigma_next, x, denoised + denoised_mix + torch.exp(-h) * x)

        x = step.multistep(update, sigma_next, order=1 if sigma_next.scalar == 0 else 2)
        old_uncond_denoised = uncond_denoised
    return x


_row: Any = partial(Sampler, hosts=("neo",), needs_unconditional=True)
ROWS = (
    _row("sample_dpmpp_2m_cfg_pp", dpmpp_2m_cfgpp, {"DPM++ 2M CFG++": {}}),
    _row("sample_euler_ancestral_cfg_pp", euler_ancestral_cfgpp, {"Euler a CFG++": {}}, noise="independent"),
    _row("sample_euler_cfg_pp", euler_cfgpp, {"Euler CFG++": {}}),
)
