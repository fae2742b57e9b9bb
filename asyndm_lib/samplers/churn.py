"""The noise that Algorithm 2 of Karras et al. (2022) adds before a step."""

from __future__ import annotations

from math import inf

import torch
from torch import Tensor

from ..clock.sigma_map import SigmaMap
from ..run.run import Run
from ..run.step import Step

ALWAYS, WHERE_ADDED = ("a1111", "forge", "reforge"), ("classic", "neo")
"""The hosts whose k-diffusion draws noise at every step, and those with ComfyUI's, which draws it
only where it adds some."""


class Churn:
    """Noise before a step.

    ``s_churn``: how much there is of it, where ``s_tmin <= sigma <= s_tmax``. ``s_noise`` scales
    it. ``always``: whether noise is drawn at every step.
    """

    def __init__(
        self,
        run: Run,
        *,
        s_churn: float = 0.0,
        s_tmin: float = 0.0,
        s_tmax: float = inf,
        s_noise: float = 1.0,
        always: bool = True,
    ):
        self._run, self._s_noise, self._always = run, s_noise, always
        self._s_tmin, self._s_tmax = s_tmin, s_tmax
        self._gamma = min(s_churn / run.evaluations, 2**0.5 - 1)

    def __call__(self, step: Step, x: Tensor) -> tuple[Tensor, SigmaMap]:
        """``x`` with its noise added, and the noise levels that it then has."""
        if self._gamma <= 0:
            if self._always:
                self._run.host.randn_like(x)
            return x, step.sigma
        if not self._always and not (self._within(step.sigma.map).any() or self._within(step.sigma.scalar)):
            return x, step.sigma
        eps = self._run.host.randn_like(x) * self._s_noise
        sigma_hat = step.sigma.apply(lambda sigma: torch.where(self._within(sigma), sigma * (self._gamma + 1), sigma))
        x = step.per_pixel(lambda sigma, hat: x + eps * (hat**2 - sigma**2) ** 0.5, step.sigma, sigma_hat)
        return x, sigma_hat

    def _within(self, sigma: Tensor) -> Tensor:
        return (self._s_tmin <= sigma) & (sigma <= self._s_tmax)
