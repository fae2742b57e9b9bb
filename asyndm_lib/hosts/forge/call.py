"""One call of Forge's sampler function."""

from __future__ import annotations

from typing import Any

import k_diffusion.sampling
from torch import Tensor

from ..common.noise_levels import Levels
from ..forge_family import call
from . import own_samplers


class Call(call.Call):
    """Forge's, and what its own samplers need beside."""

    sampling = k_diffusion.sampling

    def _levels(self, name: str, x: Tensor, options: dict[str, Any]) -> Levels:
        own_samplers.complete(name, x, options)
        return super()._levels(name, x, options)

    def _predictor(self) -> Any:
        return self._p.sd_model.forge_objects.unet.model.predictor
