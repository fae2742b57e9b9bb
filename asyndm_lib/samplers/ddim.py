"""DDIM of Song et al. (2021) in the variance-preserving form of the WebUI's own: ``x`` scaled, the model giving eps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from torch import Tensor

from ..run import Run
from ..schedule import alpha
from ..sigma_map import PixelMap, SigmaMap


def ddim(
    run: Run,
    x: Tensor,
    *,
    eta: float = 0.0,
    alphas: Sequence[Tensor] | None = None,
    added: Sequence[Tensor] | None = None,
) -> Tensor:
    """``x [B, C, H, W]``, scaled by ``sqrt(alphas_cumprod)``, → the final latent in the same scale.

    ``eta``: 0 deterministic, 1 the noise of DDPM (the paper's choice). ``alphas`` (``N + 1``) and
    ``added`` (``N``): the host's own scalars, ``alphas_cumprod`` at every noise level and the share of
    noise that each step adds, where its rounding is to be met to the bit. Draws noise every step, as the WebUI does.
    """

    for step in run:
        eps = step.predict(x)
        sigma_next = step.advance()
        noise = run.host.randn_like(x)
        a, a_next = _alpha(step.sigma), _alpha(sigma_next)
        share = PixelMap(_added(a.scalar, a_next.scalar, eta), _added(a.map, a_next.map, eta))
        if alphas is not None:
            a, a_next = replace(a, scalar=alphas[step.i]), replace(a_next, scalar=alphas[step.i + 1])
        if added is not None:
            share = replace(share, scalar=added[step.i])
        denoised = step.per_pixel(partial(_denoised, x, eps), a)
        x = step.per_pixel(partial(_next, denoised, eps, noise), a_next, share)
        step.callback(x, denoised)
    return x


def _alpha(sigma: SigmaMap) -> PixelMap:
    """``alphas_cumprod`` of every pixel."""
    return PixelMap(alpha(sigma.scalar), alpha(sigma.map))


def _added(a: Tensor, a_next: Tensor, eta: float) -> Tensor:
    """The share of fresh noise in a step from ``a`` to ``a_next``."""
    return eta * ((1 - a_next) / (1 - a) * (1 - a / a_next)).clamp(min=0).sqrt()


def _denoised(x: Tensor, eps: Tensor, a: Tensor) -> Tensor:
    return (x - (1 - a).sqrt() * eps) / a.sqrt()


def _next(denoised: Tensor, eps: Tensor, noise: Tensor, a_next: Tensor, share: Tensor) -> Tensor:
    towards_x = (1.0 - a_next - share**2).clamp(min=0).sqrt() * eps
    return a_next.sqrt() * denoised + towards_x + share * noise
