"""ComfyUI's engine, which reForge and Forge Classic have."""

from __future__ import annotations

from typing import Any

from ldm_patched.modules.model_sampling import EPS

from ...errors import Unsupported


def predictor_of(sd_model: Any) -> Any:
    """The part of ``sd_model`` that knows its noise levels and scales for it.

    Raises :class:`Unsupported` for one that predicts in a way of its own.
    """
    # An extension may have put another in its place for this picture.
    predictor = sd_model.forge_objects.unet.model.model_sampling
    if not isinstance(predictor, EPS):  # of which v-prediction and EDM are kinds
        kind = " and ".join(base.__name__ for base in type(predictor).__bases__)
        raise Unsupported(f"models that predict by {kind} are not supported; switch that way of sampling off")
    return predictor
