"""What the WebUI's timestep samplers have in common.

``x`` is in variance-preserving scale and the model gives eps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

from ..clock.schedule import alpha
from ..clock.sigma_map import PixelMap, SigmaMap

Scalar = TypeVar("Scalar")

NOT_FOR_FLOWS = "this sampler is not for rectified flow models; use another one, for example Euler"
"""What to tell where a host runs a sampler that takes a flow for a diffusion."""


def strided(steps: int) -> Tensor:
    """The WebUI's timesteps of DDIM and PLMS; see :class:`row.Sampler`."""
    return torch.arange(0, 1000, 1000 // steps).add(1).clamp(max=999).flip(0).double()


def alpha_map(sigma: SigmaMap, own: Tensor | None) -> PixelMap:
    """``alphas_cumprod`` of every pixel.

    ``own``: the host's scalar, if it is not simply that of its sigma.
    """
    return PixelMap(alpha(sigma.scalar) if own is None else own, alpha(sigma.map))


def at(values: Sequence[Scalar] | None, i: int) -> Scalar | None:
    return None if values is None else values[i]


def denoised_of(x: Tensor, eps: Tensor, a: Tensor) -> Tensor:
    """The picture in ``x`` whose noise is ``eps``; element by element."""
    return (x - (1 - a).sqrt() * eps) / a.sqrt()


def added_noise(a: Tensor, a_next: Tensor, eta: float) -> Tensor:
    """The share of fresh noise in DDIM's step to ``a_next`` (Song et al. 2021, eq. 16)."""
    return eta * ((1 - a_next) / (1 - a) * (1 - a / a_next)).clamp(min=0).sqrt()
