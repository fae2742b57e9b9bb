"""What Forge's own samplers do beside the formulas of their papers."""

from __future__ import annotations

from typing import Any

import torch
from k_diffusion import deis
from torch import Tensor

from ...samplers.deis import ORDER


def complete(name: str, x: Tensor, options: dict[str, Any]) -> None:
    """Give the host's ``options`` of the sampler function ``name`` what our sampler needs for the host's own bits."""
    if name == "sample_deis":
        options["coefficients"] = deis.get_deis_coeff_list(options["sigmas"], ORDER)
    elif name == "sample_ddpm" and options.get("noise_sampler") is None:
        # Of all samplers it alone takes PyTorch's own random numbers, which no seed of a picture belongs to.
        options["noise_sampler"] = lambda sigma, sigma_next: torch.randn_like(x)
