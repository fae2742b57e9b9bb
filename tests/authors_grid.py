"""The authors' own grid of timesteps, for parity with their research code."""

from __future__ import annotations

from torch import Tensor

from asyndm_lib.clock.schedule import NoiseLevels


class AuthorsGrid:
    """The integer timesteps of the authors' code, for parity with it.

    Progress starts at timestep ``T + 1`` and takes ``N`` equal strides to timestep 1, the first of
    them before the first evaluation; the state is rounded to an integer where it meets the model.
    """

    lead = 1

    def __init__(self, evaluations: int, levels: NoiseLevels):
        self.evaluations = self.advances = evaluations
        self._levels = levels

    def sigma(self, progress: Tensor) -> Tensor:
        """Sigma at ``progress`` (any shape, 0 … N), float64 on the CPU."""
        steps = len(self._levels.log_sigmas)
        t = steps + 1 - steps * progress.double().cpu() / self.advances
        return self._levels.t_to_sigma(t.round()).double()

    def timestep(self, sigma: Tensor) -> Tensor:
        """The integer timestep at ``sigma``."""
        return self._levels.sigma_to_t(sigma).round()
