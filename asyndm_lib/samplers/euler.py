"""Algorithm 2 (Euler steps) of Karras et al. (2022), as ``k_diffusion.sampling.sample_euler``."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor

from ..run.run import Run
from .churn import Churn


def euler(run: Run, x: Tensor, **noise: Any) -> Tensor:
    """``x [B, C, H, W]`` at the first sigma → the final latent. ``noise``: see :class:`churn.Churn`."""
    churn = Churn(run, **noise)
    for step in run:
        x, sigma_hat = churn(step, x)
        denoised = step.predict(x, sigma_hat)
        step.callback(x, denoised, sigma_hat.scalar)
        x = step.per_pixel(partial(euler_step, x, denoised), sigma_hat, step.advance())
    return x


def euler_step(x: Tensor, denoised: Tensor, sigma: Tensor, to: Tensor) -> Tensor:
    """From ``sigma`` to ``to`` along the straight line through ``denoised``; element by element."""
    return x + (x - denoised) / sigma * (to - sigma)
