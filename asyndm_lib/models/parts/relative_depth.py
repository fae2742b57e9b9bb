"""Which blocks of a transformer token maps are read of.

Of the embedded transformer's four blocks, in Stable Diffusion 3's form, it is the second one that
shows where things are (docs/EVALUATION.md). That is where 9 / 24 of the depth stands, which is the
published block of Stable Diffusion 3. Other families are read at the same share of their depth;
whether that is their best block has not been measured here.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

BLOCKS = (9 / 24,)
"""The blocks, as shares of the depth."""


def at_depths(blocks: Sequence[nn.Module], shares: Sequence[float]) -> list[nn.Module]:
    """The blocks at these ``shares`` of the depth."""
    last = len(blocks) - 1
    return [blocks[number] for number in sorted({min(last, int(share * len(blocks))) for share in shares})]
