"""Ancestral sampling with Euler steps.

Forge has a form of its own for Flux, whose noise is added as a flow wants it ("RF").
"""

from __future__ import annotations

from torch import Tensor

from ..run.host import NoiseSampler
from ..run.run import Run
from .ancestral import ancestral_step, independent_noise
from .euler import euler_step
from .flow_ancestral import flow_ancestral_euler
from .row import Sampler


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
        if flow and sigma_next.scalar == 0:
            x = denoised
            continue
        noisy = eta > 0 if flow else sigma_next.scalar > 0
        noise = noise_sampler(sigma.scalar, sigma_next.scalar) * s_noise if noisy else None

        def update(sigma: Tensor, sigma_next: Tensor) -> Tensor:
            if flow:
                return flow_ancestral_euler(x, denoised, noise, sigma, sigma_next, eta)
            sigma_down, sigma_up = ancestral_step(sigma, sigma_next, eta)
            moved = euler_step(x, denoised, sigma, sigma_down)
            return moved if noise is None else moved + noise * sigma_up

        x = step.per_pixel(update, sigma, sigma_next)
    return x


ROWS = (Sampler("sample_euler_ancestral", euler_ancestral, {"Euler a": {}}, noise="independent", benched=True),)
