"""PLMS, the WebUI's own: Adams-Bashforth over eps."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..clock.sigma_map import PixelMap
from ..run.run import Run
from ..run.step import Step
from .row import EVERYWHERE, Sampler
from .timesteps import NOT_FOR_FLOWS, alpha_map, at, denoised_of, strided


def plms(run: Run, x: Tensor, *, alphas: Sequence[Tensor] | None = None) -> Tensor:
    """PLMS of Liu et al. (2022).

    ``alphas`` (``N + 1``): the host's own ``alphas_cumprod`` at every noise level.
    """
    old_eps: list[Tensor] = []  # the newest first
    for step in run:
        eps = step.predict(x)
        sigma_next = step.advance()
        a, a_next = alpha_map(step.sigma, at(alphas, step.i)), alpha_map(sigma_next, at(alphas, step.i + 1))
        match old_eps:
            case []:
                # Nothing to go by yet: a second evaluation at the end of the step, as in Heun's
                # method.
                ahead, _ = _step(step, x, eps, a, a_next)
                eps_prime = (eps + step.predict(ahead, sigma_next)) / 2
            case [eps_1]:
                eps_prime = (3 * eps + -1 * eps_1) / 2
            case [eps_1, eps_2]:
                eps_prime = (23 * eps + -16 * eps_1 + 5 * eps_2) / 12
            case [eps_1, eps_2, eps_3]:
                eps_prime = (55 * eps + -59 * eps_1 + 37 * eps_2 + -9 * eps_3) / 24
        x, denoised = _step(step, x, eps_prime, a, a_next)
        old_eps = [eps, *old_eps[:2]]
        step.callback(x, denoised)
    return x


def _step(step: Step, x: Tensor, eps: Tensor, a: PixelMap, a_next: PixelMap) -> tuple[Tensor, Tensor]:
    denoised = step.per_pixel(lambda a: denoised_of(x, eps, a), a)
    return step.per_pixel(lambda a: a.sqrt() * denoised + (1.0 - a).sqrt() * eps, a_next), denoised


ROWS = (
    Sampler(
        "plms",
        plms,
        {"PLMS": {}},
        EVERYWHERE,
        levels="timesteps",
        timesteps=strided,
        scalars="alphas",
        least_steps=2,  # one evaluation less than timesteps
        not_for_flows=NOT_FOR_FLOWS,
    ),
)
