"""One call of reForge's sampler function."""

from __future__ import annotations

from typing import Any

from modules import sd_samplers_common
from torch import Tensor

from ...samplers.row import Options, Sampler
from ..common.noise_levels import Levels
from ..forge_family import call
from ..forge_family.comfyui import predictor_of


class Call(call.Call):
    """The host has two copies of k-diffusion, of which an option chooses one when it starts."""

    sampling = sd_samplers_common.sampling
    blends_apart = True

    def _levels(self, sampler: Sampler, x: Tensor, options: Options) -> Levels:
        if sampler.noise == "default":
            # The random numbers of the one copy are the picture's own, of the other PyTorch's.
            options = {**options, "noise_sampler": self.sampling.default_noise_sampler(x)}
        return super()._levels(sampler, x, options)

    def _predictor(self) -> Any:
        return predictor_of(self._p.sd_model)
