"""Algorithm 2 (Heun steps) of Karras et al. (2022), as ``k_diffusion.sampling.sample_heun``, and Restart.

Restart sampling (Xu et al. 2023), as the WebUI's own, goes down by Heun's steps, up again by noise, and down again.
Every descent has a clock of its own, so that all pixels are at one noise level where noise carries them up.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..clock.sigma_map import SigmaMap
from ..run.run import Run
from ..run.step import Step
from .churn import Churn
from .euler import euler_step


def heun(run: Run, x: Tensor, **noise: Any) -> Tensor:
    """``x [B, C, H, W]`` at the first sigma → the final latent. ``noise``: see :class:`churn.Churn`."""
    churn = Churn(run, **noise)
    for step in run:
        x, sigma_hat = churn(step, x)
        denoised = step.predict(x, sigma_hat)
        step.callback(x, denoised, sigma_hat.scalar)
        x = _down(step, x, denoised, sigma_hat, step.advance())
    return x


def restart(run: Run, x: Tensor, *, s_noise: float = 1.0) -> Tensor:
    """``x [B, C, H, W]`` at the first sigma → the final latent, down the descents of :func:`restart_descents`."""
    for step in run:
        end, sigma = step.risen_from, step.sigma.scalar
        if end is not None and end < sigma:
            x = x + run.host.randn_like(x) * s_noise * (sigma**2 - end**2) ** 0.5
        denoised = step.predict(x)
        step.callback(x, denoised)
        x = _down(step, x, denoised, step.sigma, step.advance())
    return x


def restart_descents(options: dict[str, Any], device: torch.device) -> list[Tensor]:
    """The descents of Restart, each with the sigma at its end, from the host's ``sigmas`` and ``restart_list``.

    Takes both out of ``options``. ``restart_list``: ``{sigma to rise from: [knots of the way back, how often,
    sigma to rise to]}``; None for the WebUI's own choice by the number of steps.
    """
    sigmas = options.pop("sigmas")
    restarts: Mapping | None = options.pop("restart_list", None)
    steps = len(sigmas) - 1
    if restarts is None and steps < 20:
        restarts = {}
    elif restarts is None:
        knots, times = (steps // 4, 2) if steps >= 36 else (9, 1)
        sigmas = _karras(steps - knots * times, sigmas[-2].item(), sigmas[0].item(), sigmas.device)
        restarts = {0.1: [knots + 1, times, 2]}
    restarts = {_nearest(sigmas, low): plan for low, plan in restarts.items()}

    descents, start = [], 0
    for end in range(1, len(sigmas)):
        if end not in restarts:
            continue
        knots, times, high = restarts[end]
        top = _nearest(sigmas, high)
        if top < end:
            again = _karras(knots, sigmas[end].item(), sigmas[top].item(), sigmas.device)[:-1]
            descents += [sigmas[start : end + 1], *[again] * times]
            start = end
    descents.append(sigmas[start:])
    return [descent for descent in descents if len(descent) > 1]


def _down(step: Step, x: Tensor, denoised: Tensor, sigma: SigmaMap, to: SigmaMap) -> Tensor:
    x_2 = step.per_pixel(partial(euler_step, x, denoised), sigma, to)
    if to.scalar == 0:
        return x_2
    denoised_2 = step.predict(x_2, to)
    return step.per_pixel(partial(_trapezoid, x, denoised, x_2, denoised_2), sigma, to)


def _trapezoid(x: Tensor, denoised: Tensor, x_2: Tensor, denoised_2: Tensor, sigma: Tensor, to: Tensor) -> Tensor:
    d, d_2 = (x - denoised) / sigma, (x_2 - denoised_2) / to
    return x + (d + d_2) / 2 * (to - sigma)


def _nearest(sigmas: Tensor, sigma: float) -> int:
    return int((sigmas - sigma).abs().argmin())


def _karras(n: int, sigma_min: float, sigma_max: float, device: torch.device, rho: float = 7.0) -> Tensor:
    """The schedule of Karras et al. (2022), ``[n + 1]`` with the final 0, in k-diffusion's precision."""
    ramp = torch.linspace(0, 1, n)
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    sigmas = (high + ramp * (low - high)) ** rho
    return torch.cat([sigmas, sigmas.new_zeros(1)]).to(device)
