"""One call of Forge's sampler function."""

from __future__ import annotations

from typing import Any

import k_diffusion.sampling
import torch
from backend.modules.k_prediction import PredictionFlux
from k_diffusion import deis
from torch import Tensor

from ...samplers.deis import ORDER
from ...samplers.row import Options, Sampler
from ..common.noise_levels import Levels
from ..forge_family import call


class Call(call.Call):
    """Forge's, and what its own samplers need beside for the host's own bits."""

    sampling = k_diffusion.sampling

    def _levels(self, sampler: Sampler, x: Tensor, options: Options) -> Levels:
        if sampler.scalars == "exponential integrator":
            options = {**options, "coefficients": deis.get_deis_coeff_list(options["sigmas"], ORDER)}
        if sampler.noise == "unseeded" and options.get("noise_sampler") is None:
            options = {**options, "noise_sampler": lambda sigma, sigma_next: torch.randn_like(x)}
        if sampler.takes("flow"):
            # The host has these samplers' forms for flows for Flux and Chroma only.
            options = {**options, "flow": isinstance(self._predictor(), PredictionFlux)}
        return super()._levels(sampler, x, options)

    def _predictor(self) -> Any:
        return self._p.sd_model.forge_objects.unet.model.predictor
