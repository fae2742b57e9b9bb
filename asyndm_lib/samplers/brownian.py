"""Brownian motion that a step asks for more than once, which k-diffusion has over sigma."""

from __future__ import annotations

import torch
from torch import Tensor

from ..clock.sigma_map import SigmaMap
from ..run.run import Run


def whole_draw(run: Run, first: Tensor, whole: Tensor, sigma: SigmaMap, middle: SigmaMap, to: SigmaMap) -> Tensor:
    """``whole`` for pixels whose levels are not the host's.

    ``first`` is drawn between the host's ``sigma`` and ``middle`` and ``whole`` between ``sigma``
    and ``to``, so they share what happens on the first part of the way. A lagging pixel's first
    part is another share of its way. Its draw for the whole way is mixed from the host's two, so
    that it has the variance 1 and shares with ``first`` what the pixel's own levels say.
    """
    host, own = (_share(*levels) for levels in zip(*((s.scalar, s.map) for s in (sigma, middle, to)), strict=True))
    rest = (whole - host.sqrt() * first) / (1 - host).clamp(min=torch.finfo(host.dtype).eps).sqrt()
    # A pixel that its curve holds still has no way, and no noise.
    own = torch.where(own.isnan(), host.to(own.dtype), own)
    mixed = own.sqrt() * first + (1 - own).sqrt() * rest
    return torch.where(run.lagging, mixed.to(whole.dtype), whole)


def _share(sigma: Tensor, middle: Tensor, to: Tensor) -> Tensor:
    """How much of the way to ``to`` leads to ``middle``."""
    return ((sigma - middle) / (sigma - to)).clamp(0, 1)
