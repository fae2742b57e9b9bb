"""Flow models: what their predictors say of noise levels.

On a flow ``x = (1 - sigma) picture + sigma noise`` (Liu et al. 2023), with sigma from 0 to 1.
"""

from __future__ import annotations

from typing import Any

import torch

from ...clock.schedule import on
from ...errors import Unsupported
from ...samplers.row import Sampler
from .noise_levels import Maps


def check_kind(sampler: Sampler, flow: bool) -> None:
    """Raise :class:`Unsupported` for a sampler that is not for the model's kind of prediction."""
    unfit = sampler.not_for_flows if flow else sampler.only_for_flows
    if unfit:
        raise Unsupported(unfit)


def flow_maps(predictor: Any) -> Maps:
    """A flow's own ``sigma → timestep`` and back.

    ``predictor``: the part of the model that knows its noise levels. Its own ``sigma(timestep)``
    bends the way down by the model's shift: it is for schedules, and no inverse of
    ``timestep(sigma)``, which is a multiple of sigma.
    """
    whole = float(predictor.timestep(torch.ones(1)))
    return Maps(on(predictor.sigmas, predictor.timestep), on(predictor.sigmas, lambda t: t / whole))
