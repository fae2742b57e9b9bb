"""DPM-Solver++(3M) SDE."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..run.host import NoiseSampler
from ..run.run import Run
from .exponential import t_of
from .row import Sampler


def dpmpp_3m_sde(run: Run, x: Tensor, *, noise_sampler: NoiseSampler, eta: float = 1.0, s_noise: float = 1.0) -> Tensor:
    """DPM-Solver++(3M) SDE of Lu et al. (2022) and Crowson."""

    def first_order(x: Tensor, denoised: Tensor, h: Tensor, h_eta: Tensor, *levels: Tensor) -> tuple[Tensor, None]:
        return torch.exp(-h_eta) * x + (-h_eta).expm1().neg() * denoised, None

    return multistep_3m_sde(run, x, t_of, first_order, noise_sampler if eta else None, eta, s_noise)


def multistep_3m_sde(
    run: Run,
    x: Tensor,
    level: Callable[[Tensor], Tensor],
    first_order: Callable[..., tuple[Tensor, Tensor | None]],
    noise_sampler: NoiseSampler | None,
    eta: float,
    s_noise: float,
) -> Tensor:
    """DPM-Solver++(3M) SDE in ``level(sigma)``, the half log SNR.

    ``first_order(x, denoised, h, h_eta, sigma, sigma_next, level_next)``: the step of ``h`` for a
    constant ``denoised``, and the picture's scale at its end (None for 1). ``noise_sampler``: None
    to add no noise.
    """
    denoised_1 = denoised_2 = x  # read from the second and the third step on
    for step in run:
        denoised = step.predict(x)
        step.callback(x, denoised)
        sigma, sigma_next = step.sigma, step.advance()
        if sigma_next.scalar == 0:
            x = denoised
        else:
            noise = None if noise_sampler is None else noise_sampler(sigma.scalar, sigma_next.scalar)

            def update(sigma: Tensor, sigma_next: Tensor, *past: Tensor) -> Tensor:
                t, t_next, *t_past = (level(sigma) for sigma in (sigma, sigma_next, *past))
                h = t_next - t
                h_eta = h * (eta + 1)
                new, scale = first_order(x, denoised, h, h_eta, sigma, sigma_next, t_next)
                if past:
                    phi_2 = h_eta.neg().expm1() / h_eta + 1
                    r0 = (t - t_past[0]) / h
                    d1_0 = (denoised - denoised_1) / r0
                    shares = [phi_2, phi_2 / h_eta - 0.5]
                    phi_2, phi_3 = shares if scale is None else [scale * share for share in shares]
                    corrected = step.if_distinct([t_next, t, t_past[0]], new + phi_2 * d1_0, new)
                    if len(past) == 2:
                        r1 = (t_past[0] - t_past[1]) / h
                        d1_1 = (denoised_1 - denoised_2) / r1
                        d1 = d1_0 + (d1_0 - d1_1) * r0 / (r0 + r1)
                        d2 = (d1_0 - d1_1) / (r0 + r1)
                        third = new + phi_2 * d1 - phi_3 * d2
                        corrected = step.if_distinct([t_next, t, *t_past], third, corrected)
                    new = corrected
                if noise is not None:
                    new = new + noise * sigma_next * (-2 * h * eta).expm1().neg().sqrt() * s_noise
                return new

            x = step.multistep(update, sigma_next, order=3)
        denoised_1, denoised_2 = denoised, denoised_1
    return x


ROWS = (
    Sampler(
        "sample_dpmpp_3m_sde",
        dpmpp_3m_sde,
        {"DPM++ 3M SDE": {}},
        noise="Brownian",
        schedule="exponential",
        discards=True,
        benched=True,
    ),
)
