"""One call of reForge's sampler function."""

from __future__ import annotations

from typing import Any

from ldm_patched.modules.model_sampling import EPS
from modules import sd_samplers_common
from torch import Tensor

from ...errors import Unsupported
from ...samplers.row import Options, Sampler
from ..common.noise_levels import Levels
from ..forge_family import call


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
        # An extension may have put another in its place for this picture.
        predictor = self._p.sd_model.forge_objects.unet.model.model_sampling
        if not isinstance(predictor, EPS):  # of which v-prediction and EDM are kinds
            kind = " and ".join(base.__name__ for base in type(predictor).__bases__)
            raise Unsupported(f"models that predict by {kind} are not supported; switch that way of sampling off")
        return predictor
