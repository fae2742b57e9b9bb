"""Restart sampling, the WebUI's own: down by Heun steps, up again by noise, and down again.

Every descent has a clock of its own, so that all pixels are at one noise level where noise carries
them up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..run.run import Run
from .euler import slope
from .heun import heun_step
from .row import EVERYWHERE, Options, Sampler


def restart(run: Run, x: Tensor, *, s_noise: float = 1.0) -> Tensor:
    """Restart sampling of Xu et al. (2023), over the descents of :func:`restart_descents`."""
    for step in run:
        end, sigma = step.risen_from, step.sigma.scalar
        if end is not None and end < sigma:
            x = x + run.host.randn_like(x) * s_noise * (sigma**2 - end**2) ** 0.5
        denoised = step.predict(x)
        d = slope(step, x, denoised, step.sigma)
        step.callback(x, denoised)
        x = heun_step(step, x, d, step.sigma, step.advance())
    return x


def restart_descents(options: Options, device: torch.device) -> tuple[list[Tensor], dict[str, Any]]:
    """The descents that the host's ``sigmas`` and ``restart_list`` make; see :data:`row.Descents`.

    ``restart_list``: ``{sigma to rise from: [knots of the way back, how often, sigma to rise
    to]}``; None for the WebUI's own choice by the number of steps.
    """
    rest = dict(options)
    sigmas = rest.pop("sigmas")
    restarts: Mapping | None = rest.pop("restart_list", None)
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
    return [descent for descent in descents if len(descent) > 1], rest


def _nearest(sigmas: Tensor, sigma: float) -> int:
    return int((sigmas - sigma).abs().argmin())


def _karras(n: int, sigma_min: float, sigma_max: float, device: torch.device, rho: float = 7.0) -> Tensor:
    """The schedule of Karras et al. (2022) in k-diffusion's precision, ``[n + 1]`` with the 0."""
    ramp = torch.linspace(0, 1, n)
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    sigmas = (high + ramp * (low - high)) ** rho
    return torch.cat([sigmas, sigmas.new_zeros(1)]).to(device)


ROWS = (
    Sampler(
        "restart_sampler",
        restart,
        {"Restart": {}},
        EVERYWHERE,
        descents=restart_descents,
        noise="independent",
        schedule="karras",
    ),
)
