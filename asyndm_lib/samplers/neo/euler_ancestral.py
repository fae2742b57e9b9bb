"""Ancestral sampling with Euler steps, on flows too.

A flow model's noise is added as its own ``x = (1 - sigma) picture + sigma noise`` wants it ("RF").
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...run.host import NoiseSampler
from ...run.run import Run
from ..ancestral import ancestral_step, independent_noise
from ..euler import euler_step
from ..flow_ancestral import flow_ancestral_euler
from ..row import Sampler


def euler_ancestral(
    run: Run,
    x: Tensor,
    *,
    eta: float = 1.0,
    s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None,
    flow: bool = False,
) -> Tensor:
    """Ancestral sampling with Euler steps. ``eta`` scales the noise added back."""
    noise_sampler = noise_sampler or independent_noise(run, x)
    for step in run:
        denoised = step.predict(x)
        step.callback(x, denoised)
        sigma, sigma_next = step.sigma, step.advance()
        if sigma_next.scalar == 0:
            x = denoised
            continue
        # A large eta leads down to 0 before the end; the host then adds no noise. Another pixel may
        # be elsewhere.
        noisy = eta > 0 if flow else ancestral_step(sigma.scalar, sigma_next.scalar, eta)[0] > 0 or run.lagging.any()
        noise = noise_sampler(sigma.scalar, sigma_next.scalar) * s_noise if noisy else torch.zeros_like(x)

        def update(sigma: Tensor, sigma_next: Tensor) -> Tensor:
            sigma_down, sigma_up = ancestral_step(sigma, sigma_next, eta)
            return torch.where(sigma_down == 0, denoised, euler_step(x, denoised, sigma, sigma_down) + noise * sigma_up)

        def flow_update(sigma: Tensor, sigma_next: Tensor) -> Tensor:
            return flow_ancestral_euler(x, denoised, noise if eta > 0 else None, sigma, sigma_next, eta)

        x = step.per_pixel(flow_update if flow else update, sigma, sigma_next)
    return x


ROWS = (Sampler("sample_euler_ancestral", euler_ancestral, {"Euler a": {}}, ("neo",), noise="independent"),)
