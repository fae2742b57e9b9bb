"""The part of these hosts' models that knows their noise levels and scales for it."""

from __future__ import annotations

from typing import Any

from ...clock.schedule import on
from ..common.flows import flow_maps
from ..common.noise_levels import Map


def is_flow(predictor: Any) -> bool:
    """Whether the model of ``predictor`` predicts the velocity of a flow."""
    return getattr(predictor, "prediction_type", None) == "const"


def maps_of(predictor: Any) -> tuple[Map, Map]:
    """The model's own ``sigma → timestep`` and back."""
    if is_flow(predictor):
        return flow_maps(predictor)
    return on(predictor.sigmas, predictor.timestep), on(predictor.sigmas, predictor.sigma)
