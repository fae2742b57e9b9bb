"""DPM-Solver++(3M) SDE (Lu et al. 2022, Crowson) in half log SNR, as ``sample_dpmpp_3m_sde`` of Forge Neo."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from ...run.host import NoiseSampler
from ...run.run import Run
from ..half_log_snr import half_log_snr, signal


def dpmpp_3m_sde(
    run: Run, x: Tensor, *, noise_sampler: NoiseSampler, eta: float = 1.0, s_noise: float = 1.0, flow: bool = False
) -> Tensor:
    """``x [B, C, H, W]`` at the first sigma (of a flow below 1) → the final latent.

    ``noise_sampler``: the host's Brownian motion, asked for the host's own noise levels. ``eta`` scales the noise.
    """

    def update(
        x: Tensor,
        denoised: Tensor,
        earlier: list[Tensor],
        noise: Tensor | None,
        sigma: Tensor,
        to: Tensor,
        *before: Tensor,
    ) -> Tensor:
        start, end, *past = (half_log_snr(level, flow) for level in (sigma, to, *before))
        h = end - start
        h_eta = h * (eta + 1)
        scale = signal(to, end)
        x = to / sigma * (-h * eta).exp() * x + scale * (-h_eta).expm1().neg() * denoised
        if earlier:
            x = _corrected(x, denoised, earlier, scale, h, h_eta, [start, *past])
        if noise is not None:
            x = x + noise * to * (-2 * h * eta).expm1().neg().sqrt() * s_noise
        return x

    earlier: list[Tensor] = []
    for step in run:
        denoised = step.predict(x)
        step.callback(x, denoised)
        sigma, to = step.sigma, step.advance()
        if to.scalar == 0:
            x = denoised
        else:
            noise = noise_sampler(sigma.scalar, to.scalar) if eta > 0 and s_noise > 0 else None
            levels = (sigma, to, *reversed(step.before[-2:]))
            x = step.per_pixel(partial(update, x, denoised, earlier, noise), *levels)
        earlier = [denoised, *earlier[:1]]
    return x


def _corrected(
    x: Tensor,
    denoised: Tensor,
    earlier: list[Tensor],
    scale: Tensor,
    h: Tensor,
    h_eta: Tensor,
    levels: list[Tensor],
) -> Tensor:
    """``x`` after a step of ``h`` in which ``denoised`` goes on as it went over ``levels``, its own the first."""
    h_1 = levels[0] - levels[1]
    r0 = h_1 / h
    d1_0 = (denoised - earlier[0]) / r0
    phi_2 = h_eta.neg().expm1() / h_eta + 1
    # A curve may hold a pixel still for a step (piecewise linear with k = 1): fewer levels to go by, or none, then.
    second = torch.where((h_1 == 0) | (h == 0), x, x + (scale * phi_2) * d1_0)
    if len(levels) == 2:
        return second
    h_2 = levels[1] - levels[2]
    r1 = h_2 / h
    d1_1 = (earlier[0] - earlier[1]) / r1
    d1 = d1_0 + (d1_0 - d1_1) * r0 / (r0 + r1)
    d2 = (d1_0 - d1_1) / (r0 + r1)
    phi_3 = phi_2 / h_eta - 0.5
    third = x + (scale * phi_2) * d1 - (scale * phi_3) * d2
    return torch.where((h_1 == 0) | (h_2 == 0) | (h == 0), second, third)
