"""An ancestral step of a flow model: further down than the next noise level, and up to it again by noise.

On ``x = (1 - sigma) picture + sigma noise`` (Liu et al. 2023) both the picture and the noise must be scaled for it.
All functions hold element by element.
"""

from __future__ import annotations

from torch import Tensor


def flow_ancestral_step(sigma: Tensor, to: Tensor, eta: float) -> tuple[Tensor, Tensor, Tensor]:
    """The noise level to step down to, and by what to scale ``x`` and the noise there to arrive at ``to``."""
    down = to * (1 + (to / sigma - 1) * eta)
    signal, signal_down = 1 - to, 1 - down
    added = to**2 - down**2 * signal**2 / signal_down**2
    return down, signal / signal_down, added.clamp(min=0) ** 0.5


def toward(x: Tensor, denoised: Tensor, sigma: Tensor, to: Tensor) -> Tensor:
    """From ``sigma`` to ``to`` along the straight line through ``denoised``, as the share of ``x`` that is left."""
    left = to / sigma
    return left * x + (1 - left) * denoised


def renoised(x: Tensor, noise: Tensor, signal: Tensor, up: Tensor) -> Tensor:
    return signal * x + noise * up
