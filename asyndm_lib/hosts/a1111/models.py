"""The WebUI's models that can run on sigma maps."""

from __future__ import annotations

from typing import Any

from ... import models
from ...errors import Unsupported


def check_model(sd_model: Any) -> None:
    """Raise :class:`Unsupported` for a model that cannot."""
    models.of(sd_model.model.diffusion_model)
    if sd_model.model.conditioning_key not in ("crossattn", "hybrid"):
        raise Unsupported("unCLIP checkpoints are not supported; use another one")


def flow_of(sd_model: Any) -> Any:
    """What knows the noise levels of a flow model, which is Stable Diffusion 3; None of another."""
    return sd_model.model.model_sampling if getattr(sd_model, "is_sd3", False) else None
