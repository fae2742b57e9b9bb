"""DPM-Solver-2, also ancestral.

Forge has an ancestral form of its own for Flux, whose noise is added as a flow wants it ("RF").
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..run.host import NoiseSampler
from ..run.run import Run
from .ancestral import ancestral_step, independent_noise
from .churn import ALWAYS, WHERE_ADDED, Churn
from .euler import euler_step, slope, to_d
from .flow_ancestral import flow_ancestral_step, renoised
from .row import Sampler


def dpm_2(run: Run, x: Tensor, **noise: Any) -> Tensor:
    """DPM-Solver-2 (Lu et al. 2022) after Karras et al. (2022).

    ``noise``: the options of :class:`churn.Churn`.
    """
    churn = Churn(run, **noise)
    for step in run:
        x, sigma_hat = churn(step, x)
        denoised = step.predict(x, sigma_hat)
        d = slope(step, x, denoised, sigma_hat)
        step.callback(x, denoised, sigma_hat.scalar)
        sigma_next = step.advance()
        if sigma_next.scalar == 0:
            x = step.per_pixel(lambda sigma, to: x + d * (to - sigma), sigma_hat, sigma_next)
            continue
        sigma_mid = step.between(_middle, sigma_hat, sigma_next)
        x_2 = step.per_pixel(lambda sigma, to: x + d * (to - sigma), sigma_hat, sigma_mid)
        denoised_2 = step.predict(x_2, sigma_mid)

        def update(sigma: Tensor, sigma_next: Tensor, sigma_mid: Tensor) -> Tensor:
            return x + to_d(x_2, denoised_2, sigma_mid) * (sigma_next - sigma)

        x = step.per_pixel(update, sigma_hat, sigma_next, sigma_mid)
    return x


def dpm_2_ancestral(
    run: Run,
    x: Tensor,
    *,
    eta: float = 1.0,
    s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None,
    flow: bool = False,
) -> Tensor:
    """Ancestral sampling with DPM-Solver-2 steps. ``eta`` scales the noise added back."""
    noise_sampler = noise_sampler or independent_noise(run, x)

    def sigma_down(sigma: Tensor, sigma_next: Tensor) -> Tensor:
        return (flow_ancestral_step if flow else ancestral_step)(sigma, sigma_next, eta)[0]

    def middle(sigma: Tensor, sigma_next: Tensor) -> Tensor:
        down = sigma_down(sigma, sigma_next)
        # There is no middle on the way to 0. A pixel's second evaluation is at its own level then,
        # which makes an Euler step.
        return torch.where(down == 0, sigma, _middle(sigma, down))

    def end(sigma: Tensor, sigma_next: Tensor) -> Tensor:
        # A step down to 0 is one without noise. A pixel that would not come to 0 goes to its next
        # level.
        return torch.where(sigma_down(sigma, sigma_next) == 0, 0.0, sigma_next)

    for step in run:
        denoised = step.predict(x)
        step.callback(x, denoised)
        sigma, sigma_next = step.sigma, step.advance()
        if sigma_down(sigma.scalar, sigma_next.scalar) == 0:
            to = step.between(end, sigma, sigma_next)
            x = step.per_pixel(lambda sigma, to: euler_step(x, denoised, sigma, to), sigma, to)
            continue
        sigma_mid = step.between(middle, sigma, sigma_next)
        x_2 = step.per_pixel(lambda sigma, to: euler_step(x, denoised, sigma, to), sigma, sigma_mid)
        denoised_2 = step.predict(x_2, sigma_mid)
        noise = noise_sampler(sigma.scalar, sigma_next.scalar) * s_noise

        def update(sigma: Tensor, sigma_next: Tensor, sigma_mid: Tensor) -> Tensor:
            d = to_d(x_2, denoised_2, sigma_mid)
            if flow:
                flow_down, alpha, up = flow_ancestral_step(sigma, sigma_next, eta)
                new = renoised(x + d * (flow_down - sigma), noise, alpha, up)
                # Rounding would move a pixel that is held still.
                return torch.where(sigma == sigma_next, x, new)
            sigma_down, sigma_up = ancestral_step(sigma, sigma_next, eta)
            return x + d * (sigma_down - sigma) + noise * sigma_up

        x = step.per_pixel(update, sigma, sigma_next, sigma_mid)
    return x


def _middle(sigma: Tensor, to: Tensor) -> Tensor:
    """Half way in log sigma."""
    return sigma.log().lerp(to.log(), 0.5).exp()


DPM_2 = Sampler("sample_dpm_2", dpm_2, {"DPM2": {}}, noise="independent", schedule="karras", discards=True)
ROWS = (
    replace(DPM_2, hosts=ALWAYS),
    replace(DPM_2, function=partial(dpm_2, always=False), hosts=WHERE_ADDED),
    replace(DPM_2, name="sample_dpm_2_ancestral", function=dpm_2_ancestral, labels={"DPM2 a": {}}),
)
