"""Kohaku LoNyu Yog, as ``sample_Kohaku_LoNyu_Yog`` of Forge Neo (by KohakuBlueleaf; there is no paper).

Ancestral Euler steps; the slope of the first half of them is corrected at a point to which the mean of the slopes
at ``x`` and at its mirror image leads.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor

from ...run.host import NoiseSampler
from ...run.run import Run
from ..ancestral import ancestral_step, independent_noise
from ..churn import Churn


def kohaku_lonyu_yog(
    run: Run, x: Tensor, *, eta: float = 1.0, noise_sampler: NoiseSampler | None = None, **noise: float
) -> Tensor:
    """``x [B, C, H, W]`` at the first sigma → the final latent.

    ``eta`` scales the noise added back. ``noise``: see :class:`churn.Churn`; its ``s_noise`` scales the former too.
    """
    noise_sampler = noise_sampler or independent_noise(run, x)
    s_noise = noise.get("s_noise", 1.0)
    churn = Churn(run, **noise)

    def half_way(x: Tensor, denoised: Tensor, mirrored: Tensor, sigma: Tensor, to: Tensor, hat: Tensor) -> Tensor:
        down, _ = ancestral_step(sigma, to, eta)
        return x + (((x - denoised) / hat + (-x - mirrored) / hat) / 2) * (down - sigma)

    def corrected(x: Tensor, denoised: Tensor, ahead: Tensor, again: Tensor, noise: Tensor, *levels: Tensor) -> Tensor:
        sigma, to, hat = levels
        down, up = ancestral_step(sigma, to, eta)
        slope = ((x - denoised) / hat + (ahead - again) / hat) / 2
        return x + slope * (down - sigma) + noise * up

    def straight(x: Tensor, denoised: Tensor, sigma: Tensor, to: Tensor, hat: Tensor) -> Tensor:
        down, _ = ancestral_step(sigma, to, eta)
        return x + (x - denoised) / hat * (down - sigma)

    for step in run:
        x, hat = churn(step, x)
        denoised = step.predict(x, hat)
        step.callback(x, denoised, hat.scalar)
        levels = (step.sigma, step.advance(), hat)
        if step.i > run.evaluations / 2:
            x = step.per_pixel(partial(straight, x, denoised), *levels)
            continue
        mirrored = step.predict(-x, hat)
        ahead = step.per_pixel(partial(half_way, x, denoised, mirrored), *levels)
        again = step.predict(ahead, hat)
        noise_added = noise_sampler(levels[0].scalar, levels[1].scalar) * s_noise
        x = step.per_pixel(partial(corrected, x, denoised, ahead, again, noise_added), *levels)
    return x
