"""DPM-Solver++(2M) SDE in half log SNR."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...run.host import NoiseSampler
from ...run.run import Run
from ..half_log_snr import half_log_snr, signal
from ..row import Sampler


def dpmpp_2m_sde(
    run: Run, x: Tensor, *, noise_sampler: NoiseSampler, eta: float = 1.0, s_noise: float = 1.0, flow: bool = False
) -> Tensor:
    """DPM-Solver++(2M) SDE of Lu et al. (2022), by the midpoint rule.

    A flow begins below sigma 1.
    """
    old_denoised: Any = None
    for step in run:
        denoised = step.predict(x)
        step.callback(x, denoised)
        sigma, sigma_next = step.sigma, step.advance()
        if sigma_next.scalar == 0:
            x = denoised
        else:
            noise = noise_sampler(sigma.scalar, sigma_next.scalar) if eta > 0 and s_noise > 0 else None

            def update(sigma: Tensor, sigma_next: Tensor, sigma_last: Tensor | None = None) -> Tensor:
                lambda_s, lambda_t = half_log_snr(sigma, flow), half_log_snr(sigma_next, flow)
                h = lambda_t - lambda_s
                h_eta = h * (eta + 1)
                alpha_t = signal(sigma_next, lambda_t)
                new = sigma_next / sigma * (-h * eta).exp() * x + alpha_t * (-h_eta).expm1().neg() * denoised
                if sigma_last is not None:
                    lambda_last = half_log_snr(sigma_last, flow)
                    r = (lambda_s - lambda_last) / h
                    slope = 0.5 * alpha_t * (-h_eta).expm1().neg() * (1 / r) * (denoised - old_denoised)
                    new = step.if_distinct([lambda_t, lambda_s, lambda_last], new + slope, new)
                if noise is not None:
                    new = new + noise * sigma_next * (-2 * h * eta).expm1().neg().sqrt() * s_noise
                return new

            x = step.multistep(update, sigma_next, order=2)
        old_denoised = denoised
    return x


ROWS = (
    Sampler(
        "sample_dpmpp_2m_sde",
        dpmpp_2m_sde,
        {"DPM++ 2M SDE": {}},
        ("neo",),
        noise="Brownian",
        begins_below_all_noise=True,
    ),
)
