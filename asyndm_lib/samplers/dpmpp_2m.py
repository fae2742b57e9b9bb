"""DPM-Solver++(2M) of Lu et al. (2022), as ``k_diffusion.sampling.sample_dpmpp_2m``."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from ..run.run import Run
from .exponential import exponential_step, step_in_t, t_of


def dpmpp_2m(run: Run, x: Tensor) -> Tensor:
    """``x [B, C, H, W]`` at the first sigma → the final latent, each pixel with its own predecessor and step size."""
    old: Tensor | None = None
    for step in run:
        denoised = step.predict(x)
        step.callback(x, denoised)
        sigma_next = step.advance()
        if old is None or sigma_next.scalar == 0:
            x = step.per_pixel(partial(exponential_step, x, denoised), step.sigma, sigma_next)
        else:
            x = step.per_pixel(partial(_second_order, x, denoised, old), step.sigma, sigma_next, step.before[-1])
        old = denoised
    return x


def _second_order(x: Tensor, denoised: Tensor, old: Tensor, sigma: Tensor, to: Tensor, before: Tensor) -> Tensor:
    """The step with ``denoised`` extrapolated from its value at ``before``."""
    t, t_next, t_before = t_of(sigma), t_of(to), t_of(before)
    h = t_next - t
    r = (t - t_before) / h
    share = 1 / (2 * r)
    extrapolated = (1 + share) * denoised - share * old
    # A curve may hold a pixel still for a step (piecewise linear with k = 1): no slope to extrapolate then.
    extrapolated = torch.where(sigma == before, denoised, extrapolated)
    return step_in_t(x, extrapolated, t, t_next, h)
