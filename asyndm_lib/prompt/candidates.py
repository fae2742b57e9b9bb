"""Targets that nobody named: words of the prompt that may name a thing, and have a region of their own.

Candidates come from the prompt alone (:mod:`words`). In a run each is compared, by the token maps of the first
evaluations that hold it, with the word of its image whose map is the most concentrated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .prompt_targets import PromptTargets, Scheduled, Tokenize
from .target_list import MAX_TARGETS, Target
from .token_search import find
from .word_lists import things

Chosen = Sequence[Sequence[str] | None]
"""Per image the words that were chosen as its targets; None for one whose targets were named."""

EVALUATIONS = 3
"""From how many of the first evaluations that hold it a word is judged."""

SHARE = 0.4
"""A word is chosen if its concentration is at least this much of the most concentrated word's."""

MOST = 12
"""How many words of an image are chosen at most."""


def named_or_candidates(
    named: Sequence[Sequence[Target]], prompts: Sequence[Sequence[Scheduled]], tokenize: Tokenize
) -> PromptTargets:
    """The targets of a batch: those that are ``named`` for each image, or the candidates of an image that has none."""
    own = [targets or candidates(parts, tokenize) for targets, parts in zip(named, prompts, strict=True)]
    together = tuple(dict.fromkeys(target for targets in own for target in targets))
    automatic = frozenset(image for image, targets in enumerate(named) if not targets)
    return PromptTargets(together, prompts, tokenize, [frozenset(targets) for targets in own], automatic)


def candidates(parts: Sequence[Scheduled], tokenize: Tokenize) -> tuple[Target, ...]:
    """The words of one image's prompt, its ``AND`` parts given, that a run is to choose from; at most ``MAX_TARGETS``.

    Those of the first text come first, then what prompt editing brings in.
    """
    words: dict[str, str] = {}
    for text in dict.fromkeys(text for part in parts for _, text in part):
        tokens = None
        for word in things(text):
            if len(words) == MAX_TARGETS:
                break
            if word.casefold() not in words:
                tokens = tokenize(text) if tokens is None else tokens
                # The tokenizer may cut otherwise, as within the name of a textual inversion.
                if find([tokens], tokenize(word), Target(word)).occurrences:
                    words[word.casefold()] = word
    return tuple(map(Target, words.values()))


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
