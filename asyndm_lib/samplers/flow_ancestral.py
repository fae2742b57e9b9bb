"""An ancestral step of a flow model.

It goes further down than the next noise level, and up to it again by noise.
On ``x = (1 - sigma) picture + sigma noise`` (Liu et al. 2023) both the picture and the noise must
be scaled for it. All functions hold element by element.
"""

from __future__ import annotations

import torch
from torch import Tensor


def flow_ancestral_step(sigma: Tensor, sigma_next: Tensor, eta: float) -> tuple[Tensor, Tensor, Tensor]:
    """The noise level to step down to, and the factors that lead up to ``sigma_next`` from there.

    They are those of ``x`` and of the noise; see :func:`renoised`.
    """
    sigma_down = sigma_next * (1 + (sigma_next / sigma - 1) * eta)
    alpha, alpha_down = 1 - sigma_next, 1 - sigma_down
    variance = sigma_next**2 - sigma_down**2 * alpha**2 / alpha_down**2
    return sigma_down, alpha / alpha_down, variance.clamp(min=0) ** 0.5


def toward(x: Tensor, denoised: Tensor, sigma: Tensor, to: Tensor) -> Tensor:
    """``x`` moved from ``sigma`` to ``to`` along the straight line through ``denoised``.

    It is written by the share of ``x`` that is left.
    """
    left = to / sigma
    return left * x + (1 - left) * denoised


def renoised(x: Tensor, noise: Tensor, alpha: Tensor, sigma_up: Tensor) -> Tensor:
    """``x`` brought up again by ``noise``."""
    return alpha * x + noise * sigma_up


def flow_ancestral_euler(
    x: Tensor, denoised: Tensor, noise: Tensor | None, sigma: Tensor, sigma_next: Tensor, eta: float
) -> Tensor:
    """An Euler step down and up again by ``noise``, if there is any."""
    sigma_down, alpha, sigma_up = flow_ancestral_step(sigma, sigma_next, eta)
    new = toward(x, denoised, sigma, sigma_down)
    new = new if noise is None else renoised(new, noise, alpha, sigma_up)
    # Rounding would move a pixel that is held still.
    return torch.where(sigma == sigma_next, x, new)
