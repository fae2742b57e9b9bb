"""Heun++, Forge's: Heun's steps with two levels ahead.

The slopes at the step's noise level and at the next two are weighed by how much noise is left of
the first sigma.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..run.run import Run
from .churn import Churn
from .euler import euler_step, slope, to_d
from .row import Sampler


def heunpp2(run: Run, x: Tensor, **noise: Any) -> Tensor:
    """Heun++ of Carzit (sd-webui-samplers-scheduler).

    ``noise``: the options of :class:`churn.Churn`.
    """
    churn = Churn(run, **noise)
    for step in run:
        if step.i == 0:
            first = step.sigma
        x, sigma_hat = churn(step, x)
        denoised = step.predict(x, sigma_hat)
        d = slope(step, x, denoised, sigma_hat)
        step.callback(x, denoised, sigma_hat.scalar)
        sigma_next = step.advance()
        x_2 = step.per_pixel(lambda sigma, to: x + d * (to - sigma), sigma_hat, sigma_next)
        if step.last:
            x = x_2
            continue
        denoised_2 = step.predict(x_2, sigma_next)
        sigma_after = step.glance()
        if sigma_after is None:

            def two_slopes(sigma: Tensor, sigma_next: Tensor, first: Tensor) -> Tensor:
                d_2 = to_d(x_2, denoised_2, sigma_next)
                w_2 = sigma_next / (2 * first)
                return x + (d * (1 - w_2) + d_2 * w_2) * (sigma_next - sigma)

            x = step.per_pixel(two_slopes, sigma_hat, sigma_next, first)
            continue
        x_3 = step.per_pixel(lambda sigma, to: euler_step(x_2, denoised_2, sigma, to), sigma_next, sigma_after)
        denoised_3 = step.predict(x_3, sigma_after)

        def three_slopes(sigma: Tensor, sigma_next: Tensor, sigma_after: Tensor, first: Tensor) -> Tensor:
            d_2 = to_d(x_2, denoised_2, sigma_next)
            d_3 = to_d(x_3, denoised_3, sigma_after)
            w = 3 * first
            w_2, w_3 = sigma_next / w, sigma_after / w
            return x + ((1 - w_2 - w_3) * d + w_2 * d_2 + w_3 * d_3) * (sigma_next - sigma)

        x = step.per_pixel(three_slopes, sigma_hat, sigma_next, sigma_after, first)
    return x


ROWS = (Sampler("sample_heunpp2", heunpp2, {"HeunPP2": {}}, ("a1111", "forge"), noise="independent"),)
