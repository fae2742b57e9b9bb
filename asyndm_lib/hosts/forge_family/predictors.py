"""The part of these hosts' models that knows their noise levels and scales for it."""

from __future__ import annotations

from typing import Any

from ...clock.schedule import NoiseLevels, alpha, on
from ..common.flows import flow_maps
from ..common.noise_levels import Map, Maps


def is_flow(predictor: Any) -> bool:
    """Whether the model of ``predictor`` predicts the velocity of a flow."""
    return getattr(predictor, "prediction_type", None) == "const"


def timestep_of(predictor: Any) -> Map:
    """Sigma → the timestep that the model is told."""
    return on(predictor.sigmas, predictor.timestep)


def maps_of(predictor: Any) -> Maps:
    """The model's own.

    Models of a table of noise levels are told the nearest one's number. Between the numbers the
    levels go as the predictor's own ``sigma(timestep)`` does.
    """
    if is_flow(predictor):
        return flow_maps(predictor)
    told = timestep_of(predictor)
    if predictor.timestep(predictor.sigmas[:1]).is_floating_point():
        return Maps(told, on(predictor.sigmas, predictor.sigma))
    table = NoiseLevels(alpha(predictor.sigmas.cpu().double()))
    return Maps(table.sigma_to_t, table.t_to_sigma, told)
