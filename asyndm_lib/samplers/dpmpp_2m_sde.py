"""DPM-Solver++(2M) SDE."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..run.host import NoiseSampler
from ..run.run import Run
from .exponential import t_of
from .row import Sampler


def dpmpp_2m_sde(
    run: Run,
    x: Tensor,
    *,
    noise_sampler: NoiseSampler,
    eta: float = 1.0,
    s_noise: float = 1.0,
    solver_type: str = "midpoint",
) -> Tensor:
    """DPM-Solver++(2M) SDE of Lu et al. (2022). ``solver_type``: "midpoint" or "heun"."""
    old_denoised: Any = None
    for step in run:
        denoised = step.predict(x)
        step.callback(x, denoised)
        sigma, sigma_next = step.sigma, step.advance()
        if sigma_next.scalar == 0:
            x = denoised
        else:
            noise = noise_sampler(sigma.scalar, sigma_next.scalar) if eta else None

            def update(sigma: Tensor, sigma_next: Tensor, sigma_last: Tensor | None = None) -> Tensor:
                t, t_next = t_of(sigma), t_of(sigma_next)
                h = t_next - t
                eta_h = eta * h
                hh = -h - eta_h
                new = sigma_next / sigma * (-eta_h).exp() * x + hh.expm1().neg() * denoised
                if sigma_last is not None:
                    t_last = t_of(sigma_last)
                    r = (t - t_last) / h
                    phi = hh.expm1().neg() / hh + 1 if solver_type == "heun" else 0.5 * hh.expm1().neg()
                    corrected = new + phi * (1 / r) * (denoised - old_denoised)
                    new = step.if_distinct([t_next, t, t_last], corrected, new)
                if noise is not None:
                    new = new + noise * sigma_next * (-2 * eta_h).expm1().neg().sqrt() * s_noise
                return new

            x = step.multistep(update, sigma_next, order=2)
        old_denoised = denoised
    return x


ROWS = (
    Sampler(
        "sample_dpmpp_2m_sde",
        dpmpp_2m_sde,
        {"DPM++ 2M SDE": {}, "DPM++ 2M SDE Heun": {"solver_type": "heun"}},
        noise="Brownian",
        schedule="exponential",
        benched=True,
    ),
)
