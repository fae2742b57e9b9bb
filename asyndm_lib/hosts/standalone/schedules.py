"""k-diffusion's noise schedules by the WebUIs' names."""

from __future__ import annotations

from typing import Any

import torch
from k_diffusion import sampling
from torch import Tensor

SCHEDULES: dict[str, str | None] = {
    "automatic": None,
    "uniform": None,
    "karras": "get_sigmas_karras",
    "exponential": "get_sigmas_exponential",
    "polyexponential": "get_sigmas_polyexponential",
}
"""Name → the function ``(n, sigma_min, sigma_max)`` of ``k_diffusion.sampling``; None: evenly spaced timesteps."""

AUTOMATIC = {
    **dict.fromkeys(("DPM++ 2M", "DPM++ SDE", "DPM++ 2S a", "DPM2", "DPM2 a", "Restart"), "karras"),
    **dict.fromkeys(("DPM++ 2M SDE", "DPM++ 2M SDE Heun", "DPM++ 3M SDE"), "exponential"),
}
"""What "automatic" is for a sampler, where not uniform: the same as in the WebUIs."""

DISCARDING = ("DPM++ 3M SDE", "DPM2", "DPM2 a")
"""Samplers for which the WebUIs leave out the last sigma but one of a longer schedule."""


def make_sigmas(denoiser: Any, name: str, sampler: str, steps: int) -> Tensor:
    """The sigmas of ``steps`` evaluations and the final 0, ``[steps + 1]``, within the range of ``denoiser``."""
    if sampler in DISCARDING:
        longer = _sigmas(denoiser, name, sampler, steps + 1)
        return torch.cat([longer[:-2], longer[-1:]])
    return _sigmas(denoiser, name, sampler, steps)


def _sigmas(denoiser: Any, name: str, sampler: str, steps: int) -> Tensor:
    name = AUTOMATIC.get(sampler, "uniform") if name == "automatic" else name
    function = SCHEDULES[name]
    if function is None:
        return denoiser.get_sigmas(steps)
    sigma_min, sigma_max = denoiser.sigma_min.item(), denoiser.sigma_max.item()
    return getattr(sampling, function)(steps, sigma_min, sigma_max, device=denoiser.sigmas.device)
