"""The refined exponential solver of Zhang et al. (2023), arXiv 2308.02157: ``sample_res_multistep`` of Forge Neo."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from ...run.host import NoiseSampler
from ...run.run import Run
from ..ancestral import independent_noise
from ..euler import euler_step
from ..exponential import sigma_of, t_of


def res_multistep(run: Run, x: Tensor, *, s_noise: float = 1.0, noise_sampler: NoiseSampler | None = None) -> Tensor:
    """``x [B, C, H, W]`` at the first sigma → the final latent, of the second order.

    ``s_noise`` counts for nothing: the host's own draws noise at every step, which it then multiplies by 0.
    """
    noise_sampler = noise_sampler or independent_noise(run, x)
    old: Tensor | None = None
    for step in run:
        denoised = step.predict(x)
        step.callback(x, denoised)
        sigma, to = step.sigma, step.advance()
        if old is None or to.scalar == 0:
            x = step.per_pixel(partial(euler_step, x, denoised), sigma, to)
        else:
            x = step.per_pixel(partial(_second_order, x, denoised, old), sigma, to, step.before[-1])
        if to.scalar > 0:
            noise_sampler(sigma.scalar, to.scalar)
        old = denoised
    return x


def _second_order(x: Tensor, denoised: Tensor, old: Tensor, sigma: Tensor, to: Tensor, before: Tensor) -> Tensor:
    t = t_of(sigma)
    h = t_of(to) - t
    phi_1 = torch.expm1(-h) / -h
    phi_2 = (phi_1 - 1.0) / -h
    extrapolated = phi_2 / ((t_of(before) - t) / h)
    # A curve may hold a pixel still for a step (piecewise linear with k = 1): nothing to extrapolate, or to do, then.
    extrapolated = torch.where(sigma == before, 0.0, extrapolated)
    newest, older = (torch.nan_to_num(share, nan=0.0) for share in (phi_1 - extrapolated, extrapolated))
    return sigma_of(h) * x + h * (newest * denoised + older * old)
