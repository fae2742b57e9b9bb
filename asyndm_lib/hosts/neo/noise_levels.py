"""The noise levels of one call of Forge Neo's sampler function, and the host's own scalars at them, to the bit."""

from __future__ import annotations

import inspect
from typing import Any

from k_diffusion import sampling
from modules.sd_samplers_extra import SigmaConvert
from torch import Tensor

from ...clock.schedule import Schedule, on
from ...errors import Unsupported
from ...run.host import Descent
from ...samplers.neo.table import SAMPLERS
from ...samplers.neo.unipc import LAST_SIGMA
from ...samplers.unipc import Marginals
from ..common import noise_levels
from ..common.noise_levels import Levels, Map

BELOW_ALL_NOISE = ("sample_dpmpp_sde", "sample_dpmpp_2m_sde", "sample_dpmpp_3m_sde", "sample_er_sde")
"""Functions that begin a flow a little below sigma 1, which has no half log SNR."""
PERCENT = 1e-4
"""How far below, of the way down; the host's number."""


def levels_of(name: str, model: Any, x: Tensor, options: dict[str, Any], predictor: Any) -> Levels:
    """For the sampler function ``name``. Turns the host's ``options`` into those of our sampler.

    Raises :class:`Unsupported` for a sampler that is not for the model's kind of prediction, and for a single step of
    UniPC.
    """
    flow = predictor.prediction_type == "const"
    if flow and "timesteps" in options:
        raise Unsupported("DDIM and PLMS are not for rectified flow models; use another sampler, for example Euler")
    if not flow and name == "sample_dpmpp_2s_ancestral_RF":
        raise Unsupported("the sampler 'DPM++ 2s a RF' is for rectified flow models only; use another one")
    if "flow" in inspect.signature(SAMPLERS[name]).parameters:
        options["flow"] = flow
    if flow and name in BELOW_ALL_NOISE and options["sigmas"][0] >= 1:
        options["sigmas"] = options["sigmas"].clone()
        options["sigmas"][0] = predictor.percent_to_sigma(PERCENT)
    if name == "sample_unipc":
        return _unipc(x, options, *_maps(predictor, flow))
    return noise_levels.levels_of(name, model, x, options, lambda: _maps(predictor, flow), sampling, whole=True)


def _maps(predictor: Any, flow: bool) -> tuple[Map, Map]:
    # A flow's own sigma(timestep) bends the way down by the model's shift: it is for schedules, and no inverse.
    to_sigma = (lambda t: t / predictor.multiplier) if flow else predictor.sigma
    return on(predictor.sigmas, predictor.timestep), on(predictor.sigmas, to_sigma)


def _unipc(x: Tensor, options: dict[str, Any], to_t: Map, to_sigma: Map) -> Levels:
    sigmas = options.pop("sigmas").clone()
    if len(sigmas) < 3:
        raise Unsupported("UniPC cannot make a single step; use more steps, or another sampler")
    if sigmas[-1] < LAST_SIGMA:
        sigmas[-1] = LAST_SIGMA
    own = SigmaConvert()
    rows = [sigma.expand(len(x)) for sigma in sigmas]
    options["marginals"] = [
        Marginals(*(f(row)[0] for f in (own.marginal_alpha, own.marginal_std, own.marginal_lambda))) for row in rows
    ]
    if not (sigmas.diff() <= 0).all():
        raise Unsupported("this schedule does not descend from step to step; choose another schedule type")
    ones = x.new_ones(len(x))
    descent = Descent(Schedule(sigmas[:-1], to_t, to_sigma), list(sigmas))
    return Levels([descent], lambda sigma: sigma * ones, lambda map: map)
