"""The noise levels of one call of Forge Neo's sampler function.

With them come the host's own scalars at these levels, to the bit.
"""

from __future__ import annotations

import functools
from typing import Any

from k_diffusion import sampling
from modules.sd_samplers_extra import SigmaConvert
from torch import Tensor

from ...clock.schedule import Schedule
from ...errors import Unsupported
from ...run.host import Descent
from ...samplers.neo.unipc import LAST_SIGMA
from ...samplers.row import Options, Sampler
from ...samplers.unipc import Marginals
from ..common import noise_levels
from ..common.flows import check_kind
from ..common.noise_levels import Levels, Maps
from ..forge_family.predictors import is_flow, maps_of, timestep_of

PERCENT = 1e-4
"""How far below sigma 1 some samplers begin a flow, of the way down; the host's number."""


def levels_of(sampler: Sampler, model: Any, x: Tensor, options: Options, predictor: Any) -> Levels:
    """The noise levels of a call of ``sampler`` with the host's ``options``.

    Raises :class:`Unsupported` for a sampler that is not for the model's kind of prediction, for a
    single step of UniPC, and for a schedule that no run can take.
    """
    flow = is_flow(predictor)
    check_kind(sampler, flow)
    options = {**options, "flow": flow} if sampler.takes("flow") else dict(options)
    if flow and sampler.begins_below_all_noise and options["sigmas"][0] >= 1:
        options["sigmas"] = options["sigmas"].clone()
        options["sigmas"][0] = predictor.percent_to_sigma(PERCENT)
    if sampler.scalars == "marginals":
        return _unipc(x, options, maps_of(predictor))
    maps, timestep = functools.partial(maps_of, predictor), timestep_of(predictor)
    return noise_levels.levels_of(sampler, model, x, options, maps, sampling, timestep)


def _unipc(x: Tensor, options: Options, maps: Maps) -> Levels:
    ours = dict(options)
    sigmas = ours.pop("sigmas").clone()
    if len(sigmas) < 3:
        raise Unsupported("UniPC cannot make a single step; use more steps, or another sampler")
    if sigmas[-1] < LAST_SIGMA:
        sigmas[-1] = LAST_SIGMA
    own = SigmaConvert()
    rows = [sigma.expand(len(x)) for sigma in sigmas]
    ours["marginals"] = [
        Marginals(*(f(row)[0] for f in (own.marginal_alpha, own.marginal_std, own.marginal_lambda))) for row in rows
    ]
    if not (sigmas.diff() <= 0).all():
        raise Unsupported("this schedule does not descend from step to step; choose another schedule type")
    ones = x.new_ones(len(x))
    descent = Descent(Schedule(sigmas[:-1], *maps), list(sigmas))
    return Levels([descent], lambda sigma: sigma * ones, lambda map: map, ours)
