"""What the samplers that add noise back have in common."""

from __future__ import annotations

from torch import Tensor, fmin

from ..run.host import NoiseSampler
from ..run.run import Run


def ancestral_step(sigma: Tensor, sigma_next: Tensor, eta: float) -> tuple[Tensor, Tensor | float]:
    """The noise level to step down to, and how much noise leads up to ``sigma_next`` again."""
    if not eta:
        return sigma_next, 0.0
    # From an infinite noise level (a flow's first one over its signal) there is no ratio: all is
    # noise again.
    variance, variance_next = sigma**2, sigma_next**2
    sigma_up = fmin(sigma_next, eta * (variance_next * (variance - variance_next) / variance) ** 0.5)
    # Where nearly all is noise again, rounding may leave less than nothing.
    return (variance_next - sigma_up**2).clamp(min=0) ** 0.5, sigma_up


def independent_noise(run: Run, x: Tensor) -> NoiseSampler:
    """k-diffusion's default noise sampler: the host's random numbers in the shape of ``x``."""
    return lambda sigma, sigma_next: run.host.randn_like(x)
