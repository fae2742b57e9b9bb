"""Euler steps."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from ..run.run import Run
from .churn import Churn
from .row import Sampler


def euler(run: Run, x: Tensor, **noise: Any) -> Tensor:
    """Algorithm 2 (Euler steps) of Karras et al. (2022).

    ``noise``: the options of :class:`churn.Churn`.
    """
    churn = Churn(run, **noise)
    for step in run:
        x, sigma_hat = churn(step, x)
        denoised = step.predict(x, sigma_hat)
        step.callback(x, denoised, sigma_hat.scalar)
        x = step.per_pixel(lambda sigma, to: euler_step(x, denoised, sigma, to), sigma_hat, step.advance())
    return x


def to_d(x: Tensor, denoised: Tensor, sigma: Tensor) -> Tensor:
    """The derivative of the ODE of Karras et al. (2022) at ``sigma``."""
    return (x - denoised) / sigma


def euler_step(x: Tensor, denoised: Tensor, sigma: Tensor, to: Tensor) -> Tensor:
    """From ``sigma`` to ``to`` along the straight line through ``denoised``."""
    return x + to_d(x, denoised, sigma) * (to - sigma)


EULER = Sampler("sample_euler", euler, {"Euler": {}}, noise="independent", benched=True)
ROWS = (EULER, replace(EULER, function=partial(euler, always=False), hosts=("neo",)))
