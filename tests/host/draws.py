"""Random numbers that our run on a map and the host on one pixel's noise levels draw at different
steps."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from asyndm_lib.samplers.ancestral import ancestral_step

Draws = tuple[Sequence[bool], Sequence[bool]]
"""Whether our run draws numbers at each step, and whether the host does."""


def of_host(noise: list, draws: Draws | None) -> list:
    """The part of the ``noise`` that our run drew in turn which belongs to the host's draws.

    ``draws`` is None where the host draws as we do.
    """
    if draws is None:
        return noise
    drawn, (ours, theirs) = iter(noise), draws
    at_steps = [next(drawn) if own else None for own in ours]
    return [numbers for numbers, wanted in zip(at_steps, theirs, strict=True) if wanted]


def of_a_large_eta(eta: float, levels: Tensor, maps: Tensor, sigmas: Tensor) -> Draws | None:
    """The draws of Euler a: at a step down to 0 the host adds no noise, while we draw for another
    pixel.

    ``levels [N]``: the pixel's. ``maps [N, B, 1, H, W]``: all pixels' at the same evaluations.
    ``sigmas [N + 1]``: the host's. At the last step nobody draws.
    """
    if eta <= 1:
        return None
    down, own_down = ([ancestral_step(*step, eta)[0] > 0 for step in pairwise(way)] for way in (sigmas[:-1], levels))
    lagging = [bool((map != sigma).any()) for map, sigma in zip(maps[1:], sigmas[1:-1], strict=True)]
    return [own or others for own, others in zip(down, lagging, strict=True)], own_down


def of_churn(low: float, high: float, levels: Tensor, maps: Tensor, sigmas: Tensor) -> Draws:
    """The draws of Forge Neo, which draws only for a noise level from ``low`` to ``high``.

    We draw while a pixel's level or the host's is one of those. The levels are as in
    :func:`of_a_large_eta`.
    """
    ours = [(low <= seen) & (seen <= high) for seen in (maps, sigmas[:-1])]
    return [bool(map.any() or own) for map, own in zip(*ours, strict=True)], [low <= level <= high for level in levels]
