"""Heun++ of Carzit (sd-webui-samplers-scheduler), as Forge's ``sample_heunpp2``: Heun's steps with two levels ahead.

The slopes at the step's noise level and at the next two are weighed by how much noise is left of the first sigma.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor

from ..run.run import Run
from .churn import Churn
from .euler import euler_step


def heunpp2(run: Run, x: Tensor, **noise: float) -> Tensor:
    """``x [B, C, H, W]`` at the first sigma → the final latent. ``noise``: see :class:`churn.Churn`."""
    churn = Churn(run, **noise)
    for step in run:
        if step.i == 0:
            first = step.sigma
        x, sigma_hat = churn(step, x)
        denoised = step.predict(x, sigma_hat)
        step.callback(x, denoised, sigma_hat.scalar)
        sigma_next = step.advance()
        x_2 = step.per_pixel(partial(euler_step, x, denoised), sigma_hat, sigma_next)
        if step.last:
            x = x_2
            continue
        denoised_2 = step.predict(x_2, sigma_next)
        after = step.glance()
        if after is None:
            x = step.per_pixel(partial(_heun, x, denoised, x_2, denoised_2), sigma_hat, sigma_next, first)
            continue
        x_3 = step.per_pixel(partial(euler_step, x_2, denoised_2), sigma_next, after)
        slopes = partial(_heunpp, x, denoised, x_2, denoised_2, x_3, step.predict(x_3, after))
        x = step.per_pixel(slopes, sigma_hat, sigma_next, after, first)
    return x


def _heun(
    x: Tensor, denoised: Tensor, x_2: Tensor, denoised_2: Tensor, sigma: Tensor, to: Tensor, first: Tensor
) -> Tensor:
    d, d_2 = (x - denoised) / sigma, (x_2 - denoised_2) / to
    w_2 = to / (2 * first)
    return x + (d * (1 - w_2) + d_2 * w_2) * (to - sigma)


def _heunpp(
    x: Tensor,
    denoised: Tensor,
    x_2: Tensor,
    denoised_2: Tensor,
    x_3: Tensor,
    denoised_3: Tensor,
    sigma: Tensor,
    to: Tensor,
    after: Tensor,
    first: Tensor,
) -> Tensor:
    d, d_2, d_3 = (x - denoised) / sigma, (x_2 - denoised_2) / to, (x_3 - denoised_3) / after
    w = 3 * first
    w_2, w_3 = to / w, after / w
    return x + ((1 - w_2 - w_3) * d + w_2 * d_2 + w_3 * d_3) * (to - sigma)
