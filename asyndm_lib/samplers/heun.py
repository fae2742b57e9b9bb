"""Heun steps."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from ..clock.sigma_map import SigmaMap
from ..run.run import Run
from ..run.step import Step
from .churn import ALWAYS, WHERE_ADDED, Churn
from .euler import slope, to_d
from .row import Sampler


def heun(run: Run, x: Tensor, **noise: Any) -> Tensor:
    """Algorithm 2 (Heun steps) of Karras et al. (2022).

    ``noise``: the options of :class:`churn.Churn`.
    """
    churn = Churn(run, **noise)
    for step in run:
        x, sigma_hat = churn(step, x)
        denoised = step.predict(x, sigma_hat)
        d = slope(step, x, denoised, sigma_hat)
        step.callback(x, denoised, sigma_hat.scalar)
        x = heun_step(step, x, d, sigma_hat, step.advance())
    return x


def heun_step(step: Step, x: Tensor, d: Tensor, sigma: SigmaMap, sigma_next: SigmaMap) -> Tensor:
    """A Heun step by the derivative ``d`` at ``sigma``; down to sigma 0 it is an Euler step."""
    x_2 = step.per_pixel(lambda sigma, to: x + d * (to - sigma), sigma, sigma_next)
    if sigma_next.scalar == 0:
        return x_2
    denoised_2 = step.predict(x_2, sigma_next)

    def mean_slope(sigma: Tensor, sigma_next: Tensor) -> Tensor:
        d_2 = to_d(x_2, denoised_2, sigma_next)
        return x + (d + d_2) / 2 * (sigma_next - sigma)

    return step.per_pixel(mean_slope, sigma, sigma_next)


HEUN = Sampler("sample_heun", heun, {"Heun": {}}, noise="independent", benched=True)
ROWS = (replace(HEUN, hosts=ALWAYS), replace(HEUN, function=partial(heun, always=False), hosts=WHERE_ADDED))
