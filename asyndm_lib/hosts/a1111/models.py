"""The WebUI's models that can run on sigma maps."""

from __future__ import annotations

from typing import Any

from ...errors import Unsupported


def check_model(sd_model: Any) -> None:
    """Raise :class:`Unsupported` for a model that cannot."""
    if getattr(sd_model, "is_sd3", False):
        raise Unsupported("Stable Diffusion 3 is not supported; use a Stable Diffusion 1, 2 or XL checkpoint")
    if sd_model.model.conditioning_key not in ("crossattn", "hybrid"):
        raise Unsupported("unCLIP checkpoints are not supported; use another one")
