"""Kohaku LoNyu Yog, by KohakuBlueleaf; there is no paper.

Ancestral Euler steps. The slope of the first half of them is corrected at a point to which the mean
of the slopes at ``x`` and at its mirror image leads.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...run.host import NoiseSampler
from ...run.run import Run
from ..ancestral import ancestral_step, independent_noise
from ..churn import Churn
from ..euler import slope, to_d
from ..row import Sampler


def kohaku_lonyu_yog(
    run: Run, x: Tensor, *, eta: float = 1.0, noise_sampler: NoiseSampler | None = None, **noise: Any
) -> Tensor:
    """Kohaku LoNyu Yog. ``eta`` scales the noise added back.

    ``noise``: the options of :class:`churn.Churn`; its ``s_noise`` scales the noise added back too.
    """
    noise_sampler = noise_sampler or independent_noise(run, x)
    s_noise = noise.get("s_noise", 1.0)
    churn = Churn(run, **noise)
    for step in run:
        x, sigma_hat = churn(step, x)
        denoised = step.predict(x, sigma_hat)
        d = slope(step, x, denoised, sigma_hat)
        step.callback(x, denoised, sigma_hat.scalar)
        sigma, sigma_next = step.sigma, step.advance()
        if step.i > run.evaluations / 2:

            def euler(sigma: Tensor, sigma_next: Tensor) -> Tensor:
                sigma_down, _ = ancestral_step(sigma, sigma_next, eta)
                return x + d * (sigma_down - sigma)

            x = step.per_pixel(euler, sigma, sigma_next)
            continue
        denoised_mirror = step.predict(-x, sigma_hat)

        def half_way(sigma: Tensor, sigma_next: Tensor, sigma_hat: Tensor) -> Tensor:
            sigma_down, _ = ancestral_step(sigma, sigma_next, eta)
            d_mirror = to_d(-x, denoised_mirror, sigma_hat)
            return x + ((d + d_mirror) / 2) * (sigma_down - sigma)

        x_2 = step.per_pixel(half_way, sigma, sigma_next, sigma_hat)
        denoised_2 = step.predict(x_2, sigma_hat)
        added = noise_sampler(sigma.scalar, sigma_next.scalar) * s_noise

        def update(sigma: Tensor, sigma_next: Tensor, sigma_hat: Tensor) -> Tensor:
            sigma_down, sigma_up = ancestral_step(sigma, sigma_next, eta)
            mean = (d + to_d(x_2, denoised_2, sigma_hat)) / 2
            return x + mean * (sigma_down - sigma) + added * sigma_up

        x = step.per_pixel(update, sigma, sigma_next, sigma_hat)
    return x


ROWS = (Sampler("sample_Kohaku_LoNyu_Yog", kohaku_lonyu_yog, {"Kohaku LoNyu Yog": {}}, ("neo",), noise="independent"),)
