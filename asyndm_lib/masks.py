"""Token maps → which pixels are prompt-related, and with what concavity (METHOD, section 2)."""

from __future__ import annotations

import torch
from torch import Tensor

from .clock import Relation
from .nearest import resize

TIMINGS = ("lagged", "fresh", "static")


def relate(maps: Tensor, present: Tensor, concavities: Tensor, threshold: float, height: int, width: int) -> Relation:
    """The mask ``OR_o [A^o >= threshold·mean(A^o)]`` of every image, up-sampled to the latent.

    ``maps``: ``[B, T, h, w]`` token maps of ``T`` targets. ``present``: bool ``[B, T]``, whether the
    image's prompt holds the target at this step. ``concavities``: ``[T]``. Where the masks of several
    targets overlap, a pixel takes the largest concavity. ``height``, ``width``: the latent's.
    """
    hit = (maps >= threshold * maps.mean(dim=(-2, -1), keepdim=True)) & present[:, :, None, None]
    concavity = torch.where(hit, concavities[:, None, None], -1.0).amax(dim=1, keepdim=True)
    concavity = resize(concavity, height, width)
    return Relation(concavity >= 0, concavity.clamp(min=0))


def everywhere(concavities: Tensor, height: int, width: int) -> Relation:
    """Every pixel of every image related with that image's concavity ``[B]``; a negative one relates none."""
    concavity = concavities[:, None, None, None].expand(-1, 1, height, width)
    return Relation(concavity >= 0, concavity.clamp(min=0))
