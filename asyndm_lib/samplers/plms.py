"""PLMS of Liu et al. (2022), as the WebUI's own: Adams-Bashforth over eps, ``x`` in variance-preserving scale."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor

from ..clock.sigma_map import PixelMap
from ..run.run import Run
from ..run.step import Step
from .timesteps import alpha_map, at, denoised_of

_WEIGHTS = {2: (3, -1), 3: (23, -16, 5), 4: (55, -59, 37, -9)}
_SUM = {2: 2, 3: 12, 4: 24}


def plms(run: Run, x: Tensor, *, alphas: Sequence[Tensor] | None = None) -> Tensor:
    """``x [B, C, H, W]`` → the final latent in the same scale.

    ``alphas`` (``N + 1``): the host's own scalars, ``alphas_cumprod`` at every noise level, where its
    rounding is to be met to the bit.
    """
    slopes: list[Tensor] = []  # the newest first
    for step in run:
        eps = step.predict(x)
        sigma_next = step.advance()
        a, a_next = alpha_map(step.sigma, at(alphas, step.i)), alpha_map(sigma_next, at(alphas, step.i + 1))
        slopes = [eps, *slopes[:3]]
        if len(slopes) == 1:
            # Nothing to go by yet: a second evaluation at the end of the step, as in Heun's method.
            ahead, _ = _step(step, x, eps, a, a_next)
            eps = (eps + step.predict(ahead, sigma_next)) / 2
        else:
            eps = _extrapolated(slopes)
        x, denoised = _step(step, x, eps, a, a_next)
        step.callback(x, denoised)
    return x


def _step(step: Step, x: Tensor, eps: Tensor, a: PixelMap, a_next: PixelMap) -> tuple[Tensor, Tensor]:
    denoised = step.per_pixel(partial(denoised_of, x, eps), a)
    return step.per_pixel(partial(_next, denoised, eps), a_next), denoised


def _extrapolated(slopes: Sequence[Tensor]) -> Tensor:
    first, *others = _WEIGHTS[len(slopes)]
    total = first * slopes[0]
    for weight, slope in zip(others, slopes[1:], strict=True):
        total = total + weight * slope
    return total / _SUM[len(slopes)]


def _next(denoised: Tensor, eps: Tensor, a_next: Tensor) -> Tensor:
    return a_next.sqrt() * denoised + (1.0 - a_next).sqrt() * eps
