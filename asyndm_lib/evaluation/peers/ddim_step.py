"""One step of DDIM with the noise that a sampler adds, for peers that change how a step begins."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from ...clock.sigma_map import PixelMap
from ...run.step import Step
from ...samplers.timesteps import added_noise, denoised_of


def ddim_step(step: Step, x: Tensor, eps: Tensor, noise: Tensor, a: PixelMap, a_next: PixelMap, eta: float) -> Tensor:
    """The latent at ``a_next``, from ``x`` at ``a`` and the noise ``eps`` that was predicted in it.

    ``a`` and ``a_next`` are ``alphas_cumprod`` of every pixel; ``noise`` is standard normal.
    """
    share = PixelMap(
        *(added_noise(here, there, eta) for here, there in ((a.scalar, a_next.scalar), (a.map, a_next.map)))
    )
    denoised = step.per_pixel(partial(denoised_of, x, eps), a)
    return step.per_pixel(partial(_renoised, denoised, eps, noise), a_next, share)


def _renoised(denoised: Tensor, eps: Tensor, noise: Tensor, a_next: Tensor, share: Tensor) -> Tensor:
    return a_next.sqrt() * denoised + (1 - a_next - share**2).clamp(min=0).sqrt() * eps + share * noise
