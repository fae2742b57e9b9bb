"""DPM-Solver-fast of Lu et al. (2022), as ``k_diffusion.sampling.sample_dpm_fast``.

It takes its noise levels evenly in ``t = -log sigma``, and of ``n`` evaluations one, two or three a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..clock.sigma_map import SigmaMap
from ..run.host import NoiseSampler
from ..run.run import Run
from .ancestral import ancestral_step, independent_noise
from .exponential import sigma_of, t_of


def dpm_fast_descents(options: dict[str, Any], device: torch.device) -> list[Tensor]:
    """The one descent that the host's ``n``, ``sigma_min`` and ``sigma_max`` make; it ends at ``sigma_min``, not 0.

    They are taken out of ``options``; ``times`` and ``orders`` come in their place.
    """
    n, low, high = options.pop("n"), options.pop("sigma_min"), options.pop("sigma_max")
    start, end = (t_of(torch.as_tensor(sigma)) for sigma in (high, low))
    options["times"] = torch.linspace(start, end, n // 3 + 2, device=device)
    options["orders"] = [3] * (n // 3 - 1) + [2, 1] if n % 3 == 0 else [3] * (n // 3) + [n % 3]
    return [torch.stack([sigma_of(t) for t in options["times"]])]


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
    """``x [B, C, H, W]`` at the first sigma → the latent at ``sigma_min``.

    ``times``: the host's own scalars ``t`` at every noise level. ``orders``: how many evaluations each
    step has. ``eta`` scales the noise added back.
    """
    noise_sampler = noise_sampler or independent_noise(run, x)
    solver = _Solver(times[-1], eta)
    for step in run:
        t = _in_t(step.sigma, times[step.i])
        denoised = step.predict(x)
        eps = step.per_pixel(partial(_eps, x, denoised), step.sigma)
        step.callback(x, denoised)
        t_next = _in_t(step.advance(), times[step.i + 1])
        start = x
        slopes = [eps]
        for part in {1: [], 2: [1 / 2], 3: [1 / 3, 2 / 3]}[orders[step.i]]:
            sigma = step.between(partial(solver.level, part), t, t_next)
            u = step.per_pixel(partial(solver.inner, part, start, slopes), t, t_next)
            slopes.append(step.per_pixel(partial(_eps, u, step.predict(u, sigma)), sigma))
        x = step.per_pixel(partial(solver.last, start, slopes), t, t_next)
        noise = noise_sampler(step.sigma.scalar, sigma_of(t_next.scalar))
        x = step.per_pixel(partial(solver.noised, x, noise, s_noise), t, t_next)
    return x


def _in_t(sigma: SigmaMap, own: Tensor) -> SigmaMap:
    """``t`` of every pixel; ``own``: the host's, from which its sigma was made with a rounding of its own."""
    levels = t_of(sigma.levels)
    return SigmaMap(own, torch.cat([own.reshape(1).to(levels), levels[1:]]), sigma.index)


def _eps(x: Tensor, denoised: Tensor, sigma: Tensor) -> Tensor:
    return (x - denoised) / sigma


class _Solver:
    """The formulas of one step from ``t`` to ``t_next``; element by element.

    ``eps``: the slopes found so far: at ``t``, and at the inner noise levels.
    """

    def __init__(self, end: Tensor, eta: float):
        self._end, self._eta = end, eta

    def goal(self, t: Tensor, t_next: Tensor) -> Tensor:
        """Where the step leads before its noise."""
        if not self._eta:
            return t_next
        down, _ = ancestral_step(sigma_of(t), sigma_of(t_next), self._eta)
        return torch.minimum(self._end, t_of(down))

    def level(self, part: float, t: Tensor, t_next: Tensor) -> Tensor:
        """The inner sigma at ``part`` of the way."""
        return sigma_of(t + part * (self.goal(t, t_next) - t))

    def inner(self, part: float, x: Tensor, eps: Sequence[Tensor], t: Tensor, t_next: Tensor) -> Tensor:
        """``x`` at ``part`` of the way."""
        h = self.goal(t, t_next) - t
        sigma = sigma_of(t + part * h)
        u = x - sigma * (part * h).expm1() * eps[0]
        if len(eps) == 1:
            return u
        bend = sigma * 2 * ((part * h).expm1() / (part * h) - 1) * (eps[1] - eps[0])
        return torch.where(h == 0, x, u - bend)

    def last(self, x: Tensor, eps: Sequence[Tensor], t: Tensor, t_next: Tensor) -> Tensor:
        """``x`` at the goal, of as many orders as there are slopes."""
        goal = self.goal(t, t_next)
        h, sigma = goal - t, sigma_of(goal)
        straight = x - sigma * h.expm1() * eps[0]
        if len(eps) == 1:
            return straight
        if len(eps) == 2:
            return straight - sigma / (2 * (1 / 2)) * h.expm1() * (eps[1] - eps[0])
        # A curve may hold a pixel still for a step (piecewise linear with k = 1): it goes nowhere then.
        return torch.where(h == 0, x, straight - sigma / (2 / 3) * (h.expm1() / h - 1) * (eps[2] - eps[0]))

    def noised(self, x: Tensor, noise: Tensor, s_noise: float, t: Tensor, t_next: Tensor) -> Tensor:
        """``x`` at ``t_next``."""
        up = 0.0
        if self._eta:
            # Of a pixel that is held still rounding may make the difference negative.
            up = (sigma_of(t_next) ** 2 - sigma_of(self.goal(t, t_next)) ** 2).clamp(min=0) ** 0.5
        return x + up * s_noise * noise
