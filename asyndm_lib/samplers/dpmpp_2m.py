"""DPM-Solver++(2M)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..run.run import Run
from .exponential import exponential_step, t_of
from .row import EVERYWHERE, Sampler


def dpmpp_2m(run: Run, x: Tensor) -> Tensor:
    """DPM-Solver++(2M) of Lu et al. (2022)."""
    old_denoised: Any = None
    for step in run:
        denoised = step.predict(x)
        step.callback(x, denoised)
        sigma_next = step.advance()

        def update(sigma: Tensor, sigma_next: Tensor, sigma_last: Tensor | None = None) -> Tensor:
            t, t_next = t_of(sigma), t_of(sigma_next)
            h = t_next - t
            denoised_d = denoised
            if sigma_last is not None:
                t_last = t_of(sigma_last)
                r = (t - t_last) / h
                share = 1 / (2 * r)
                extrapolated = (1 + share) * denoised - share * old_denoised
                denoised_d = step.if_distinct([t, t_last], extrapolated, denoised)
            return exponential_step(x, denoised_d, t, t_next, h)

        x = step.multistep(update, sigma_next, order=1 if sigma_next.scalar == 0 else 2)
        old_denoised = denoised
    return x


ROWS = (Sampler("sample_dpmpp_2m", dpmpp_2m, {"DPM++ 2M": {}}, EVERYWHERE, schedule="karras", benched=True),)
