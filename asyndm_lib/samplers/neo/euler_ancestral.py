"""Ancestral sampling with Euler steps as ``sample_euler_ancestral`` of Forge Neo, of flow models too.

A flow model's noise is added as its own ``x = (1 - sigma) picture + sigma noise`` wants it ("RF").
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from ...run.host import NoiseSampler
from ...run.run import Run
from ..ancestral import ancestral_step, independent_noise
from ..euler import euler_step
from .flow_ancestral import flow_ancestral_step, renoised, toward


def euler_ancestral(
    run: Run,
    x: Tensor,
    *,
    eta: float = 1.0,
    s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None,
    flow: bool = False,
) -> Tensor:
    """``x [B, C, H, W]`` at the first sigma → the final latent. ``eta`` scales the noise added back."""
    noise_sampler = noise_sampler or independent_noise(run, x)
    for step in run:
        denoised = step.predict(x)
        step.callback(x, denoised)
        sigma, to = step.sigma, step.advance()
        if to.scalar == 0:
            x = denoised
            continue
        # A large eta leads down to 0 before the end; the host then adds no noise. Another pixel may be elsewhere.
        noisy = eta > 0 if flow else ancestral_step(sigma.scalar, to.scalar, eta)[0] > 0 or run.lagging.any()
        noise = noise_sampler(sigma.scalar, to.scalar) * s_noise if noisy else torch.zeros_like(x)
        x = step.per_pixel(partial(_flow_update if flow else _update, x, denoised, noise, eta), sigma, to)
    return x


def _update(x: Tensor, denoised: Tensor, noise: Tensor, eta: float, sigma: Tensor, to: Tensor) -> Tensor:
    down, up = ancestral_step(sigma, to, eta)
    return torch.where(down == 0, denoised, euler_step(x, denoised, sigma, down) + noise * up)


def _flow_update(x: Tensor, denoised: Tensor, noise: Tensor, eta: float, sigma: Tensor, to: Tensor) -> Tensor:
    down, signal, up = flow_ancestral_step(sigma, to, eta)
    moved = toward(x, denoised, sigma, down)
    return torch.where(sigma == to, x, renoised(moved, noise, signal, up) if eta > 0 else moved)
