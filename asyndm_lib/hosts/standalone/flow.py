"""A rectified flow (Liu et al. 2023) as k-diffusion sees a model.

``x = (1 - sigma) · picture + sigma · noise``; the model predicts the velocity ``noise - picture``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

TIMESTEPS = 1000
"""What most models are told of the sigma 1."""


class FlowDenoiser(nn.Module):
    """k-diffusion's denoiser of a flow, with the methods of its ``DiscreteSchedule``.

    ``model.apply_model(x, t, **conditioning)`` is the velocity. ``shift`` bends the way from all
    noise to none, so that more of the steps are spent at high noise levels (Esser et al. 2024,
    equation 23). The model is told ``timesteps · sigma``.
    """

    def __init__(self, model: Any, shift: float, device: torch.device | str = "cpu", timesteps: float = TIMESTEPS):
        super().__init__()
        self.inner_model, self.shift, self.timesteps = model, shift, timesteps
        self.sigmas = self.shifted(torch.arange(1, TIMESTEPS + 1, dtype=torch.float64) / TIMESTEPS).float().to(device)

    @property
    def sigma_min(self) -> Tensor:
        return self.sigmas[0]

    @property
    def sigma_max(self) -> Tensor:
        """All noise: 1."""
        return self.sigmas[-1]

    def shifted(self, t: Tensor) -> Tensor:
        """The sigma that stands at ``t`` of the way up from no noise (0) to noise alone (1)."""
        return self.shift * t / (1 + (self.shift - 1) * t)

    def get_sigmas(self, n: int) -> Tensor:
        """Sigmas of ``n`` even steps of the way down, and the final 0, ``[n + 1]``."""
        return self.shifted(torch.linspace(1, 0, n + 1, dtype=torch.float64)).float().to(self.sigmas.device)

    def sigma_to_t(self, sigma: Tensor) -> Tensor:
        """What the model is told of ``sigma`` (any shape)."""
        return sigma * self.timesteps

    def t_to_sigma(self, t: Tensor) -> Tensor:
        """Its inverse. The shift is no part of it: it belongs to the schedule."""
        return t / self.timesteps

    def get_scalings(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """k-diffusion's factors of the output and the input; a sigma may be a map."""
        return -sigma, torch.ones_like(sigma)

    def forward(self, x: Tensor, sigma: Tensor, **conditioning: Any) -> Tensor:
        """The picture that is predicted of ``x [n, C, h, w]`` at ``sigma [n]``."""
        c_out, c_in = (factor if factor.ndim == x.ndim else factor.view(-1, 1, 1, 1)
                       for factor in self.get_scalings(sigma))
        return x + self.inner_model.apply_model(x * c_in, self.sigma_to_t(sigma), **conditioning) * c_out
