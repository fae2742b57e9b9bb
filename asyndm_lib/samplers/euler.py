"""Euler steps."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from ..clock.sigma_map import SigmaMap
from ..run.run import Run
from ..run.step import Step
from .churn import ALWAYS, WHERE_ADDED, Churn
from .row import Sampler


def euler(run: Run, x: Tensor, **noise: Any) -> Tensor:
    """Algorithm 2 (Euler steps) of Karras et al. (2022).

    ``noise``: the options of :class:`churn.Churn`.
    """
    churn = Churn(run, **noise)
    for step in run:
        x, sigma_hat = churn(step, x)
        denoised = step.predict(x, sigma_hat)
        d = slope(step, x, denoised, sigma_hat)
        step.callback(x, denoised, sigma_hat.scalar)
        x = step.per_pixel(lambda sigma, to: x + d * (to - sigma), sigma_hat, step.advance())
    return x


def slope(step: Step, x: Tensor, denoised: Tensor, sigma: SigmaMap) -> Tensor:
    """The derivative :func:`to_d` of every pixel at its level in ``sigma``.

    It is taken before the callback where the host takes it there: what somebody then writes into
    ``denoised`` does not count, and what is written into ``x`` moves the step's start alone.
    """
    difference = x - denoised
    return step.per_pixel(lambda sigma: difference / sigma, sigma)


def to_d(x: Tensor, denoised: Tensor, sigma: Tensor) -> Tensor:
    """The derivative of the ODE of Karras et al. (2022) at ``sigma``."""
    return (x - denoised) / sigma


def euler_step(x: Tensor, denoised: Tensor, sigma: Tensor, to: Tensor) -> Tensor:
    """From ``sigma`` to ``to`` along the straight line through ``denoised``."""
    return x + to_d(x, denoised, sigma) * (to - sigma)


EULER = Sampler("sample_euler", euler, {"Euler": {}}, noise="independent", benched=True)
ROWS = (replace(EULER, hosts=ALWAYS), replace(EULER, function=partial(euler, always=False), hosts=WHERE_ADDED))
