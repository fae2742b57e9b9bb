"""DDIM of Song et al. (2021) and its CFG++ form (Chung et al. 2024), as the WebUI's own.

``x`` is scaled by ``sqrt(alphas_cumprod)``, and the model gives eps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor

from ..clock.sigma_map import PixelMap
from ..run.run import Run
from .timesteps import added_noise, alpha_map, at, denoised_of


def ddim(
    run: Run,
    x: Tensor,
    *,
    eta: float = 0.0,
    alphas: Sequence[Tensor] | None = None,
    added: Sequence[Tensor] | None = None,
) -> Tensor:
    """``x [B, C, H, W]`` → the final latent in the same scale.

    ``eta``: 0 deterministic, 1 the noise of DDPM (the paper's choice). ``alphas`` (``N + 1``) and
    ``added`` (``N``): the host's own scalars, ``alphas_cumprod`` at every noise level and the share of
    noise that each step adds, where its rounding is to be met to the bit. Draws noise every step, as the WebUI does.
    """
    return _ddim(run, x, eta, alphas, added, lambda eps: eps)


def ddim_cfgpp(
    run: Run,
    x: Tensor,
    *,
    eta: float = 0.0,
    alphas: Sequence[Tensor] | None = None,
    added: Sequence[Tensor] | None = None,
) -> Tensor:
    """As :func:`ddim`, renoising with the unconditional prediction; the host has a guidance scale for it."""
    return _ddim(run, x, eta, alphas, added, lambda eps: run.host.unconditional())


def _ddim(
    run: Run,
    x: Tensor,
    eta: float,
    alphas: Sequence[Tensor] | None,
    added: Sequence[Tensor] | None,
    direction: Callable[[Tensor], Tensor],
) -> Tensor:
    """``direction(eps)``: what the step's renoising goes by."""
    for step in run:
        eps = step.predict(x)
        towards = direction(eps)
        sigma_next = step.advance()
        noise = run.host.randn_like(x)
        a, a_next = alpha_map(step.sigma, at(alphas, step.i)), alpha_map(sigma_next, at(alphas, step.i + 1))
        own = added_noise(a.scalar, a_next.scalar, eta) if added is None else added[step.i]
        share = PixelMap(own, added_noise(a.map, a_next.map, eta))
        denoised = step.per_pixel(partial(denoised_of, x, eps), a)
        x = step.per_pixel(partial(_next, denoised, towards, noise), a_next, share)
        step.callback(x, denoised)
    return x


def _next(denoised: Tensor, eps: Tensor, noise: Tensor, a_next: Tensor, share: Tensor) -> Tensor:
    towards_x = (1.0 - a_next - share**2).clamp(min=0).sqrt() * eps
    return a_next.sqrt() * denoised + towards_x + share * noise
