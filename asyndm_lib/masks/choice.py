"""Which candidates become targets where a person named none.

Each candidate is compared, by the token maps of the first evaluations that hold it, with the word
of its image whose map is the most concentrated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..clock.cells import precision
from ..prompt.prompt_targets import PromptTargets

Chosen = Sequence[Sequence[str] | None]
"""The words chosen as each image's targets; None for an image whose targets were named."""

EVALUATIONS = 3
"""How many of the first evaluations that hold a word judge it."""

SHARE = 0.4
"""A word is chosen if its concentration is at least this much of the most concentrated word's."""

MOST = 12
"""How many words of an image are chosen at most."""


def concentration(maps: Tensor, reach: Tensor | None = None) -> Tensor:
    """How far each of ``maps [..., h, w]`` is from flat, ``[...]``.

    It is 0 for a flat map and 1 where all is in one place: 1 less the map's entropy, as a share of
    a flat one's. A map of nothing is flat. ``reach`` is the part of each that can hold anything;
    None for all.
    """
    shares = maps.to(precision(maps.device)).flatten(-2) + torch.finfo(torch.float32).tiny
    shares = shares / shares.sum(dim=-1, keepdim=True)
    entropy = torch.special.entr(shares).sum(dim=-1)
    if reach is None:
        return 1 + entropy.neg() / max(math.log(shares.shape[-1]), 1e-9)
    return 1 - entropy / (shares.shape[-1] * reach.to(shares)).log().clamp(min=1e-9)


class Choice:
    """The choice of a batch's targets among its candidates.

    It is made, and changes, on the device; :meth:`words` fetches it. ``chosen`` is bool ``[B, T]``,
    by what was seen so far; all of it for images that named their targets.
    """

    def __init__(self, targets: PromptTargets, device: torch.device):
        shape = len(targets.prompts), len(targets.targets)
        self._device, self._targets, self._automatic = device, targets.targets, targets.automatic
        self._seen = torch.zeros(shape, dtype=torch.int64)
        self._sum = torch.zeros(shape, device=device)
        self._named = torch.ones(shape, dtype=torch.bool)
        self._named[sorted(targets.automatic)] = False
        self.chosen = self._named.to(device)

    def see(self, maps: Tensor, present: Tensor, reach: Tensor | None = None) -> None:
        """Take in the token maps ``[B, T, h, w]`` of one evaluation.

        ``present`` is bool ``[B, T]`` on the CPU: which candidates each prompt holds. ``reach``
        ``[B, T]`` is the part of the picture that is shown each; None for all.
        """
        if reach is not None:
            present = present & (reach > 0).cpu()
        new = present & ~self._named & (self._seen < EVALUATIONS)
        if not new.any():
            return
        self._seen += new
        there, new, seen = (state.to(self._device) for state in (present, new, self._seen))
        strength = torch.where(there, concentration(maps, reach), 0).to(self._sum)
        strength = strength / strength.amax(dim=1, keepdim=True).clamp(min=1e-9)
        self._sum = self._sum + torch.where(new, strength, 0)
        mean = torch.where(seen > 0, self._sum / seen.clamp(min=1), -1.0)
        highest = mean.topk(min(MOST, mean.shape[1]), dim=1).values
        enough = (mean >= SHARE * highest[:, :1]) & (mean >= highest[:, -1:]) & (seen > 0)
        self.chosen = enough | self._named.to(self._device)

    def words(self) -> Chosen:
        """The words chosen for each image, in its prompt's order; None where targets were named."""
        words = [
            tuple(target.text for target, yes in zip(self._targets, own, strict=True) if yes)
            for own in self.chosen.tolist()
        ]
        return [own if image in self._automatic else None for image, own in enumerate(words)]
