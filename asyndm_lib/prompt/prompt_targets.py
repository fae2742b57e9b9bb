"""The prompts of one batch over the steps of a run: which tokens stand for which target, when."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .target_list import Target
from .token_search import Found, Token, find

Tokenize = Callable[[str], Sequence[Token]]
"""The host's tokenization of one text (no ``AND``, no prompt editing left in it)."""

Scheduled = Sequence[tuple[int, str]]
"""Prompt editing: ``(last step, text)`` in order; the text of the first entry whose step is not yet passed holds."""


@dataclass
class PromptTargets:
    """The targets of a batch of prompts.

    ``prompts``: per image its ``AND`` parts, each a :data:`Scheduled`. ``tokenize``: the host's. ``named``: per
    image the targets that are meant for it; None where all are for all. ``automatic``: the images whose targets are
    candidates, from which a run chooses (:mod:`automatic`).
    """

    targets: Sequence[Target]
    prompts: Sequence[Sequence[Scheduled]]
    tokenize: Tokenize
    named: Sequence[Set[Target]] | None = None
    automatic: Set[int] = frozenset()
    _tokens: dict[str, Sequence[Token]] = field(default_factory=dict, init=False, repr=False)
    _found: dict[tuple, list[Found]] = field(default_factory=dict, init=False, repr=False)
    _keys: dict[tuple[int, int], tuple] = field(default_factory=dict, init=False, repr=False)
    _held: dict[tuple, Tensor] = field(default_factory=dict, init=False, repr=False)
    _present: dict[tuple, Tensor] = field(default_factory=dict, init=False, repr=False)
    _weights: dict[tuple, Tensor] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self._words = [self.tokenize(target.text) for target in self.targets]

    def found(self, image: int, step: int) -> list[Found]:
        """Per target, where it stands in the image's prompt at ``step`` (counting model evaluations)."""
        key = self._key(image, step)
        if key not in self._found:
            texts, named = key
            for text in texts:
                if text not in self._tokens:
                    self._tokens[text] = self.tokenize(text)
            parts = [self._tokens[text] for text in texts]
            self._found[key] = [
                find(parts, words, target) if named is None or target in named else Found(())
                for words, target in zip(self._words, self.targets, strict=True)
            ]
        return self._found[key]

    def _key(self, image: int, step: int) -> tuple:
        """All that decides where the targets stand in an image's prompt."""
        at = image, step
        if at not in self._keys:
            texts = tuple(_active(part, step) for part in self.prompts[image])
            self._keys[at] = texts, None if self.named is None else frozenset(self.named[image])
        return self._keys[at]

    def present(self, step: int, device: torch.device | str = "cpu") -> Tensor:
        """Bool ``[B, T]``: whether the target stands in the image's prompt at ``step``."""
        held = tuple(self._key(image, step) for image in range(len(self.prompts)))
        if (held, device) in self._held:
            return self._held[held, device]
        found = [self.found(image, step) for image in range(len(self.prompts))]
        key = tuple(tuple(bool(f.occurrences) for f in image) for image in found), device
        if key not in self._present:
            shape = len(self.prompts), len(self.targets)
            self._present[key] = torch.tensor(key[0], dtype=torch.bool).reshape(shape).to(device)
        self._held[held, device] = self._present[key]
        return self._present[key]

    def ever_present(self) -> Tensor:
        """Bool ``[B, T]``: whether the target stands in the image's prompt at any step of the schedule."""
        changes = {end for parts in self.prompts for part in parts for end, _ in part}
        return torch.stack([self.present(step) for step in sorted(changes | {0})]).any(dim=0)

    def missing(self) -> list[Target]:
        """The targets that no image's prompt holds at any step."""
        present = self.ever_present().any(dim=0)
        return [target for target, there in zip(self.targets, present.tolist(), strict=True) if not there]

    def weights(self, image: int, part: int, step: int, context: int, device: torch.device | str = "cpu") -> Tensor:
        """``[context, T]``: multiplied with a softmax over ``context`` tokens gives each target's mean token map.

        Summed over the ``AND`` parts of an image the weights of a present target make 1.
        """
        key = self._key(image, step), part, context, device
        if key not in self._weights:
            found = self.found(image, step)
            weights = torch.zeros(context, len(found))
            for column, where in enumerate(found):
                count = sum(len(positions) for _, positions in where.occurrences)
                for position in where.positions(part):
                    if position < context:  # the host may cut a prompt's context short
                        weights[position, column] += 1 / count
            self._weights[key] = weights.to(device)
        return self._weights[key]


def _active(schedule: Scheduled, step: int) -> str:
    # Past the last entry the WebUI takes the first one.
    return next((text for end, text in schedule if step <= end), schedule[0][1])
