"""The noise level at any progress: linear in the model's timestep between the host's sigmas."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .cells import sent


def alpha(sigma: Tensor) -> Tensor:
    """``alphas_cumprod`` at ``sigma`` (any shape)."""
    return 1 / (1 + sigma**2)


def on(buffer: Tensor, map: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """``map`` of a host's denoiser, which works where ``buffer`` is, for values of any shape
    anywhere.
    """
    return lambda values: map(sent(values, buffer.device, buffer.dtype).flatten()).reshape(values.shape)


class NoiseLevels:
    """The discrete noise levels of a DDPM and their continuous extension, linear in ``log sigma``.

    They are those of ``k_diffusion.external.DiscreteSchedule``, in the precision of
    ``alphas_cumprod`` ``[T]``. Timestep 0 is the cleanest.
    """

    def __init__(self, alphas_cumprod: Tensor):
        self.log_sigmas = ((1 - alphas_cumprod) / alphas_cumprod).log() / 2

    def sigma_to_t(self, sigma: Tensor) -> Tensor:
        """Continuous timestep of ``sigma`` (any shape), held within ``[0, T - 1]``."""
        table = sent(self.log_sigmas, sigma.device)
        log_sigma = sigma.to(table.dtype).log()
        low = (torch.searchsorted(table, log_sigma.contiguous()) - 1).clamp(0, len(table) - 2)
        weight = (log_sigma - table[low]) / (table[low + 1] - table[low])
        return low + weight.clamp(0, 1)

    def t_to_sigma(self, t: Tensor) -> Tensor:
        """Sigma of the continuous timestep ``t`` (any shape)."""
        table = sent(self.log_sigmas, t.device)
        t = t.to(table.dtype).clamp(0, len(table) - 1)
        low = t.floor().long().clamp(max=len(table) - 2)
        return torch.lerp(table[low], table[low + 1], t - low).exp()


class Schedule:
    """Sigma at any progress.

    ``sigmas`` ``[N]`` are the host's at its ``N`` model evaluations, descending, without the final
    0. ``sigma_to_t`` and ``t_to_sigma`` are the host's own maps between sigma and continuous
    timestep, each the inverse of the other. ``told``: sigma → the timestep that the model is told,
    where that is not the continuous one.
    """

    def __init__(
        self,
        sigmas: Tensor,
        sigma_to_t: Callable[[Tensor], Tensor],
        t_to_sigma: Callable[[Tensor], Tensor],
        told: Callable[[Tensor], Tensor] | None = None,
    ):
        self._told, self._t_to_sigma = told or sigma_to_t, t_to_sigma
        self._timesteps = sigma_to_t(sigmas).cpu().double()
        self._sigmas = sigmas.cpu().double()
        # A schedule may leave the model's range (sigma_max 80, sigma_min 0.001), where the timestep
        # stands still. What the timesteps miss there is interpolated beside them, so that sigma(i)
        # is sigma_i everywhere.
        self._beyond = self._sigmas.log() - t_to_sigma(self._timesteps).cpu().double().log()

    @property
    def evaluations(self) -> int:
        """How many model evaluations there are, ``N``."""
        return len(self._timesteps)

    @property
    def advances(self) -> int:
        """Advances of the clock from its start to the last evaluation."""
        return self.evaluations - 1

    def timestep(self, sigma: Tensor) -> Tensor:
        """What the model is told of a cell at ``sigma`` (any shape)."""
        return self._told(sigma)

    def sigma(self, progress: Tensor) -> Tensor:
        """Sigma at ``progress`` (any shape, 0 to N - 1), float64 on the CPU, exact at whole
        numbers.
        """
        u = progress.cpu().double().clamp(0, self.evaluations - 1)
        low = u.floor().long().clamp(max=max(self.evaluations - 2, 0))
        high = (low + 1).clamp(max=self.evaluations - 1)
        weight = u - low
        t = torch.lerp(self._timesteps[low], self._timesteps[high], weight)
        beyond = torch.lerp(self._beyond[low], self._beyond[high], weight)
        between = self._t_to_sigma(t).cpu().double() * beyond.exp()
        nearest = u.round().long()
        return torch.where(u == nearest, self._sigmas[nearest], between)
