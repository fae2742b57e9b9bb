"""DPM-Solver-fast.

It takes its noise levels evenly in ``t = -log sigma``, and one, two or three evaluations a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..clock.sigma_map import SigmaMap
from ..run.host import NoiseSampler
from ..run.run import Run
from .ancestral import ancestral_step, independent_noise
from .euler import slope, to_d
from .exponential import sigma_of, t_of
from .row import Options, Sampler


def dpm_fast(
    run: Run,
    x: Tensor,
    *,
    times: Sequence[Tensor],
    orders: Sequence[int],
    eta: float = 0.0,
    s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None,
) -> Tensor:
    """DPM-Solver-fast of Lu et al. (2022).

    ``times``: the host's own scalars ``t`` at every noise level. ``orders``: how many evaluations
    each step has. ``eta`` scales the noise added back.
    """
    noise_sampler = noise_sampler or independent_noise(run, x)
    solver = Solver(times[-1], eta)
    for step in run:
        t = _in_t(step.sigma, times[step.i])
        denoised = step.predict(x)
        eps = [slope(step, x, denoised, step.sigma)]
        step.callback(x, step.per_pixel(lambda sigma: x - sigma * eps[0], step.sigma))
        t_next = _in_t(step.advance(), times[step.i + 1])
        for r in {1: [], 2: [1 / 2], 3: [1 / 3, 2 / 3]}[orders[step.i]]:
            sigma = step.between(lambda t, t_next: solver.inner_sigma(r, t, t_next), t, t_next)
            u = step.per_pixel(lambda t, t_next: solver.inner(r, x, eps, t, t_next), t, t_next)
            denoised_u = step.predict(u, sigma)
            eps.append(step.per_pixel(lambda sigma: to_d(u, denoised_u, sigma), sigma))
        x = step.per_pixel(lambda t, t_next: solver.step(x, eps, t, t_next), t, t_next)
        noise = noise_sampler(step.sigma.scalar, sigma_of(t_next.scalar))
        x = step.per_pixel(lambda t, t_next: solver.noised(x, noise, s_noise, t, t_next), t, t_next)
    return x


class Solver:
    """The formulas of one step from ``t`` to ``t_next``; element by element.

    ``eps``: the slopes found so far, at ``t`` and at the inner noise levels. ``r``: an inner one's
    place on the way. ``end``: the last ``t`` of all.
    """

    def __init__(self, end: Tensor, eta: float):
        self._end, self._eta = end, eta

    def t_down(self, t: Tensor, t_next: Tensor) -> Tensor:
        """Where the step leads before its noise."""
        if not self._eta:
            return t_next
        sigma_down, _ = ancestral_step(sigma_of(t), sigma_of(t_next), self._eta)
        return torch.minimum(self._end, t_of(sigma_down))

    def inner_sigma(self, r: float, t: Tensor, t_next: Tensor) -> Tensor:
        """The noise level at ``r`` of the way."""
        return sigma_of(t + r * (self.t_down(t, t_next) - t))

    def inner(self, r: float, x: Tensor, eps: Sequence[Tensor], t: Tensor, t_next: Tensor) -> Tensor:
        """``x`` at ``r`` of the way."""
        h = self.t_down(t, t_next) - t
        sigma = sigma_of(t + r * h)
        u = x - sigma * (r * h).expm1() * eps[0]
        if len(eps) == 1:
            return u
        bend = sigma * 2 * ((r * h).expm1() / (r * h) - 1) * (eps[1] - eps[0])
        return torch.where(h == 0, x, u - bend)

    def step(self, x: Tensor, eps: Sequence[Tensor], t: Tensor, t_next: Tensor) -> Tensor:
        """``x`` before its noise, of as many orders as there are slopes."""
        t_down = self.t_down(t, t_next)
        h, sigma = t_down - t, sigma_of(t_down)
        x_1 = x - sigma * h.expm1() * eps[0]
        if len(eps) == 1:
            return x_1
        if len(eps) == 2:
            return x_1 - sigma / (2 * (1 / 2)) * h.expm1() * (eps[1] - eps[0])
        # A pixel that its curve holds still goes nowhere.
        return torch.where(h == 0, x, x_1 - sigma / (2 / 3) * (h.expm1() / h - 1) * (eps[2] - eps[0]))

    def noised(self, x: Tensor, noise: Tensor, s_noise: float, t: Tensor, t_next: Tensor) -> Tensor:
        """``x`` at ``t_next``."""
        sigma_up: Tensor | float = 0.0
        if self._eta:
            # Rounding may make the difference negative for a pixel that is held still.
            sigma_up = (sigma_of(t_next) ** 2 - sigma_of(self.t_down(t, t_next)) ** 2).clamp(min=0) ** 0.5
        return x + sigma_up * s_noise * noise


def dpm_fast_descents(options: Options, device: torch.device) -> tuple[list[Tensor], dict[str, Any]]:
    """The descent that the host's ``n``, ``sigma_min`` and ``sigma_max`` make.

    See :data:`row.Descents`. It ends at ``sigma_min``, not 0. What is left has ``times`` and
    ``orders``.
    """
    rest = dict(options)
    n, low, high = rest.pop("n"), rest.pop("sigma_min"), rest.pop("sigma_max")
    start, end = (t_of(torch.as_tensor(sigma)).item() for sigma in (high, low))
    rest["times"] = torch.linspace(start, end, n // 3 + 2, device=device)
    rest["orders"] = [3] * (n // 3 - 1) + [2, 1] if n % 3 == 0 else [3] * (n // 3) + [n % 3]
    return [torch.stack([sigma_of(t) for t in rest["times"]])], rest


def _in_t(sigma: SigmaMap, own: Tensor) -> SigmaMap:
    """``t`` of every pixel.

    ``own``: the host's, from which its sigma was made with a rounding of its own.
    """
    levels = t_of(sigma.levels)
    levels = torch.cat([own.reshape(1).to(levels), levels[1:]])
    return SigmaMap(own, levels, sigma.index, cells=sigma.cells)


ROWS = (
    Sampler(
        "sample_dpm_fast",
        dpm_fast,
        {"DPM fast": {}},
        levels="range",
        descents=dpm_fast_descents,
        noise="independent",
    ),
)
