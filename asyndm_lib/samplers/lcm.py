"""Multistep consistency sampling of latent consistency models, the WebUI's own."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from ..run.host import NoiseSampler
from ..run.run import Run
from .ancestral import independent_noise
from .row import WEBUIS, Sampler
from .timesteps import NOT_FOR_FLOWS


def lcm(run: Run, x: Tensor, *, noise_sampler: NoiseSampler | None = None, flow: bool = False) -> Tensor:
    """Multistep consistency sampling of Luo et al. (2023).

    ``flow``: whether the model is a flow.
    """
    noise_sampler = noise_sampler or independent_noise(run, x)
    for step in run:
        denoised = step.predict(x)
        step.callback(x, denoised)
        sigma, sigma_next = step.sigma, step.advance()
        x = denoised
        if sigma_next.scalar > 0:
            noise = noise_sampler(sigma.scalar, sigma_next.scalar)

            def noised(sigma: Tensor) -> Tensor:
                return sigma * noise + (1.0 - sigma) * denoised if flow else denoised + sigma * noise

            x = step.per_pixel(noised, sigma_next)
    return x


LCM = Sampler("sample_lcm", lcm, {"LCM": {}}, ("neo",), noise="default")
ROWS = (LCM, replace(LCM, hosts=WEBUIS, not_for_flows=NOT_FOR_FLOWS))
