"""The mask that token maps make by a threshold (docs/METHOD.md, section 2)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..clock.clocks import Mask

LEAST = 1e-30
"""A mean that only a map of zeros is below."""

ToCells = Callable[[Tensor], Tensor]
"""Brings a map ``[..., h, w]`` to the size of the cells."""


def relate(
    maps: Tensor, concavities: Tensor, threshold: float, to_cells: ToCells, reach: Tensor | None = None
) -> Mask:
    """The mask ``OR_o [A^o >= threshold·mean(A^o)]`` of every image, up-sampled to the cells.

    ``maps`` ``[B, T, h, w]`` are the token maps of ``T`` targets. ``concavities`` ``[B, T]`` are
    negative for a target that the image's prompt does not hold at this step. Where the masks of
    several targets overlap, a cell takes the largest concavity. ``reach`` ``[B, T]`` is the part of
    the picture that is shown each target, over which the mean is; None for all.
    """
    hit = _hit(maps, threshold, reach)
    concavity = to_cells(torch.where(hit, concavities[:, :, None, None], -1.0).amax(dim=1, keepdim=True))
    return Mask(concavity >= 0, concavity)


def relate_alike(
    maps: Tensor,
    present: Tensor,
    concavity: Tensor,
    threshold: float,
    to_cells: ToCells,
    reach: Tensor | None = None,
) -> Mask:
    """The mask of :func:`relate` for targets of one ``concavity`` (0-d), with fewer operations.

    ``present`` is bool ``[B, T]``: the targets that each image's prompt holds.
    """
    hit = _hit(maps, threshold, reach) & present[:, :, None, None]
    related = to_cells(hit.any(dim=1, keepdim=True))
    return Mask(related, concavity.expand_as(related))


def _hit(maps: Tensor, threshold: float, reach: Tensor | None) -> Tensor:
    """Where each target's map reaches its threshold, bool ``[B, T, h, w]``; nowhere in a map of
    zeros.
    """
    least = maps.mean(dim=(-2, -1), keepdim=True).clamp(min=LEAST)
    if reach is not None:  # a map is zero elsewhere
        least = least / reach[:, :, None, None].to(least)
    hit = maps >= (least if threshold == 1 else threshold * least)
    return hit if reach is None else hit & (maps > 0)


def reached(highest: Tensor, mean: Tensor, threshold: float, reach: Tensor | None = None) -> Tensor:
    """Which targets some place belongs to, bool ``[B, T]``, by the ``highest`` value and the
    ``mean`` of their maps.
    """
    least = mean.clamp(min=LEAST)
    if reach is None:
        return highest >= threshold * least
    return (highest >= threshold * least / reach.to(least)) & (highest > 0)


def everywhere(concavities: Tensor, height: int, width: int) -> Mask:
    """Every cell related with its image's concavity of ``[B]``; a negative one relates none."""
    concavity = concavities[:, None, None, None].expand(-1, 1, height, width)
    return Mask(concavity >= 0, concavity)
