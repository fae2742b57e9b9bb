"""The refined exponential solver."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...run.host import NoiseSampler
from ...run.run import Run
from ..ancestral import independent_noise
from ..euler import euler_step
from ..exponential import sigma_of, t_of
from ..row import Sampler


def res_multistep(run: Run, x: Tensor, *, s_noise: float = 1.0, noise_sampler: NoiseSampler | None = None) -> Tensor:
    """The refined exponential solver of Zhang et al. (2023), arXiv 2308.02157, of the second order.

    ``s_noise`` counts for nothing: the host's own draws noise at every step, which it then
    multiplies by 0.
    """
    noise_sampler = noise_sampler or independent_noise(run, x)
    old_denoised: Any = None
    for step in run:
        denoised = step.predict(x)
        step.callback(x, denoised)
        sigma, sigma_next = step.sigma, step.advance()
        if old_denoised is None or sigma_next.scalar == 0:
            x = step.per_pixel(lambda sigma, to: euler_step(x, denoised, sigma, to), sigma, sigma_next)
        else:

            def update(sigma: Tensor, sigma_next: Tensor, sigma_last: Tensor) -> Tensor:
                t, t_last = t_of(sigma), t_of(sigma_last)
                h = t_of(sigma_next) - t
                phi_1 = torch.expm1(-h) / -h
                phi_2 = (phi_1 - 1.0) / -h
                b_2 = step.if_distinct([t, t_last], phi_2 / ((t_last - t) / h), 0.0)
                # Where a pixel is held still, h is 0.
                b_1, b_2 = (torch.nan_to_num(b, nan=0.0) for b in (phi_1 - b_2, b_2))
                return sigma_of(h) * x + h * (b_1 * denoised + b_2 * old_denoised)

            x = step.multistep(update, sigma_next, order=2)
        if sigma_next.scalar > 0:
            noise_sampler(sigma.scalar, sigma_next.scalar)
        old_denoised = denoised
    return x


ROWS = (Sampler("sample_res_multistep", res_multistep, {"Res Multistep": {}}, ("neo",), noise="independent"),)
