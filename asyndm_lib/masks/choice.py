"""Which candidates become targets where a person named none.

Each candidate is compared, by the token maps of the first evaluations that hold it, with the word of
its image whose map is the most concentrated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..prompt.prompt_targets import PromptTargets

Chosen = Sequence[Sequence[str] | None]
"""Per image the words that were chosen as its targets; None for one whose targets were named."""

EVALUATIONS = 3
"""From how many of the first evaluations that hold it a word is judged."""

SHARE = 0.4
"""A word is chosen if its concentration is at least this much of the most concentrated word's."""

MOST = 12
"""How many words of an image are chosen at most."""


def concentration(maps: Tensor) -> Tensor:
    """How far each of ``maps [..., h, w]`` is from flat, ``[...]``: 0 for a flat one, 1 where all is in one place.

    It is 1 less the entropy of the map, as a share of the entropy that a flat one has; a map of nothing is flat.
    """
    shares = maps.double() if maps.device.type != "mps" else maps.float()
    shares = shares.flatten(-2) + torch.finfo(torch.float32).tiny
    shares = shares / shares.sum(dim=-1, keepdim=True)
    return 1 + torch.special.entr(shares).sum(dim=-1).neg() / max(math.log(shares.shape[-1]), 1e-9)


class Choice:
    """Which candidates of a batch are its targets. It is made, and changes, on the device; :meth:`words` fetches it.

    ``chosen``: bool ``[B, T]``, by what was seen so far. Of images that are not ``automatic`` it is all.
    """

    def __init__(self, targets: PromptTargets, device: torch.device):
        shape = len(targets.prompts), len(targets.targets)
        self._device, self._targets, self._automatic = device, targets.targets, targets.automatic
        self._seen = torch.zeros(shape, dtype=torch.int64)
        self._sum = torch.zeros(shape, device=device)
        self._named = torch.ones(shape, dtype=torch.bool)
        self._named[sorted(targets.automatic)] = False
        self.chosen = self._named.to(device)

    def see(self, maps: Tensor, present: Tensor) -> None:
        """The token maps ``[B, T, h, w]`` of one evaluation. ``present``: bool ``[B, T]`` on the CPU."""
        new = present & ~self._named & (self._seen < EVALUATIONS)
        if not new.any():
            return
        self._seen += new
        there, new, seen = (state.to(self._device) for state in (present, new, self._seen))
        strength = torch.where(there, concentration(maps), 0).to(self._sum)
        strength = strength / strength.amax(dim=1, keepdim=True).clamp(min=1e-9)
        self._sum = self._sum + torch.where(new, strength, 0)
        mean = torch.where(seen > 0, self._sum / seen.clamp(min=1), -1.0)
        highest = mean.topk(min(MOST, mean.shape[1]), dim=1).values
        enough = (mean >= SHARE * highest[:, :1]) & (mean >= highest[:, -1:]) & (seen > 0)
        self.chosen = enough | self._named.to(self._device)

    def words(self) -> Chosen:
        """Per image what was chosen, in the order of its prompt; None for an image that named its targets."""
        words = [
            tuple(target.text for target, yes in zip(self._targets, own, strict=True) if yes)
            for own in self.chosen.tolist()
        ]
        return [own if image in self._automatic else None for image, own in enumerate(words)]
