"""What a CFG++ sampler has the host's denoiser do."""

from __future__ import annotations

from typing import Any

from ...samplers.row import Sampler


def guide_as_the_host(sampler: Sampler, model: Any) -> None:
    """Set the guidance of the host's denoiser ``model`` as its own function does, and leaves it."""
    if sampler.cfg_divisor is not None:
        model.cond_scale_miltiplier = 1 / sampler.cfg_divisor
        model.need_last_noise_uncond = True
