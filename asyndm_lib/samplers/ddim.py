"""DDIM and its CFG++ form, the WebUI's own.

``eta`` is 0 for no noise and 1 for the noise of DDPM, the paper's choice. ``alphas`` (``N + 1``)
and ``added`` (``N``) are the host's own scalars: ``alphas_cumprod`` at every noise level and the
share of noise that each step adds. Noise is drawn at every step, as the WebUI does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from ..clock.sigma_map import PixelMap
from ..run.run import Run
from .row import EVERYWHERE, WEBUIS, Sampler
from .timesteps import NOT_FOR_FLOWS, added_noise, alpha_map, at, denoised_of, strided

Scalars = Sequence[Tensor] | None


def ddim(run: Run, x: Tensor, *, eta: float = 0.0, alphas: Scalars = None, added: Scalars = None) -> Tensor:
    """DDIM of Song et al. (2021)."""
    return _ddim(run, x, lambda eps: eps, eta, alphas, added)


def ddim_cfgpp(run: Run, x: Tensor, *, eta: float = 0.0, alphas: Scalars = None, added: Scalars = None) -> Tensor:
    """DDIM in the CFG++ form of Chung et al. (2024): renoised by the unconditional prediction."""
    return _ddim(run, x, lambda eps: run.host.unconditional(), eta, alphas, added)


def _ddim(
    run: Run, x: Tensor, direction: Callable[[Tensor], Tensor], eta: float, alphas: Scalars, added: Scalars
) -> Tensor:
    """``direction(eps)``: what a step is renoised by."""
    for step in run:
        eps = step.predict(x)
        towards = direction(eps)
        sigma_next = step.advance()
        noise = run.host.randn_like(x)
        a, a_next = alpha_map(step.sigma, at(alphas, step.i)), alpha_map(sigma_next, at(alphas, step.i + 1))
        own = added_noise(a.scalar, a_next.scalar, eta) if added is None else added[step.i]
        share = PixelMap(own, added_noise(a.map, a_next.map, eta))
        denoised = step.per_pixel(lambda a: denoised_of(x, eps, a), a)

        def renoised(a_next: Tensor, share: Tensor) -> Tensor:
            towards_x = (1.0 - a_next - share**2).clamp(min=0).sqrt() * towards
            return a_next.sqrt() * denoised + towards_x + share * noise

        x = step.per_pixel(renoised, a_next, share)
        step.callback(x, denoised)
    return x


DDIM = Sampler(
    "ddim",
    ddim,
    {"DDIM": {}},
    EVERYWHERE,
    levels="timesteps",
    timesteps=strided,
    noise="independent",
    scalars="alphas",
    least_steps=2,  # one evaluation less than timesteps
    not_for_flows=NOT_FOR_FLOWS,
)
CFGPP: dict[str, Any] = {"cfg_divisor": 12.5, "needs_unconditional": True}
ROWS = (DDIM, replace(DDIM, name="ddim_cfgpp", function=ddim_cfgpp, labels={"DDIM CFG++": {}}, hosts=WEBUIS, **CFGPP))
