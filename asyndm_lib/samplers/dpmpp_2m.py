"""DPM-Solver++(2M)."""

from __future__ import annotations

from torch import Tensor

from ..run.run import Run
from .exponential import exponential_step, t_of
from .row import EVERYWHERE, Sampler


def dpmpp_2m(run: Run, x: Tensor) -> Tensor:
    """DPM-Solver++(2M) of Lu et al. (2022)."""
    old_denoised = None
    for step in run:
        denoised = step.predict(x)
        step.callback(x, denoised)
        sigma_next = step.advance()

        def first_order(sigma: Tensor, sigma_next: Tensor) -> Tensor:
            t, t_next = t_of(sigma), t_of(sigma_next)
            return exponential_step(x, denoised, t, t_next, t_next - t)

        def second_order(sigma: Tensor, sigma_next: Tensor, sigma_last: Tensor) -> Tensor:
            t, t_next = t_of(sigma), t_of(sigma_next)
            h = t_next - t
            r = (t - t_of(sigma_last)) / h
            share = 1 / (2 * r)
            denoised_d = (1 + share) * denoised - share * old_denoised
            return exponential_step(x, denoised_d, t, t_next, h)

        x = step.multistep([first_order] if sigma_next.scalar == 0 else [first_order, second_order], sigma_next)
        old_denoised = denoised
    return x


ROWS = (Sampler("sample_dpmpp_2m", dpmpp_2m, {"DPM++ 2M": {}}, EVERYWHERE, schedule="karras", benched=True),)
