"""The targets of one batch over the steps of a run: which tokens stand for which target, when."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from .target_list import Target
from .token_search import Found, Spelling, Token, find

Tokenize = Callable[[str], Sequence[Token]]
"""The host's tokenization of one text, in which no ``AND`` and no prompt editing is left."""

Scheduled = Sequence[tuple[int, str]]
"""Prompt editing: ``(last step, text)`` in order.

The text of the first entry whose last step is not yet passed holds.
"""

_T = TypeVar("_T")


@dataclass
class PromptTargets:
    """The targets of a batch of prompts, and where they stand in each.

    Steps count model evaluations, as the host does.

    ``prompts``: per image its ``AND`` parts, each a :data:`Scheduled`.
    ``named``: per image the targets that are meant for it; None where all are for all.
    ``automatic``: the images whose targets are candidates, from which a run chooses
    (:mod:`asyndm_lib.masks.choice`).
    """

    targets: Sequence[Target]
    prompts: Sequence[Sequence[Scheduled]]
    tokenize: Tokenize
    named: Sequence[Set[Target]] | None = None
    automatic: Set[int] = frozenset()
    _made: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False)
    """Results by all that they depend on: at most steps the prompt is that of the step before."""

    def found(self, image: int, step: int) -> list[Found]:
        """Per target, where it stands in the image's prompt at ``step``."""
        state = self._state(image, step)
        return self._once(("found", *state), lambda: self._find(*state))

    def present(
        self, step: int, device: torch.device | str = "cpu", context: int | None = None
    ) -> Tensor:
        """Bool ``[B, T]``: whether the target stands in the image's prompt at ``step``.

        With ``context`` only that many tokens of the prompt count: the host may cut it short.
        It is the same tensor as before where nothing has changed.
        """
        found = [self.found(image, step) for image in range(len(self.prompts))]
        there = tuple(tuple(where.begins_within(context) for where in image) for image in found)

        def make() -> Tensor:
            shape = len(self.prompts), len(self.targets)
            return torch.tensor(there, dtype=torch.bool).reshape(shape).to(device)

        return self._once(("present", there, device), make)

    def texts(self) -> list[str]:
        """The different texts that the prompts ever are, in order."""
        return list(dict.fromkeys(text for parts in self.prompts for part in parts for _, text in part))

    def changes(self) -> list[int]:
        """The steps that show all that the prompts ever are: 0, and the last one of every text."""
        return sorted({0} | {end for parts in self.prompts for part in parts for end, _ in part})

    def ever_present(self) -> Tensor:
        """Bool ``[B, T]``: whether the target stands in the image's prompt at any step."""
        return torch.stack([self.present(step) for step in self.changes()]).any(dim=0)

    def missing(self) -> list[Target]:
        """The targets that no image's prompt holds at any step, where the model reads it."""
        present = self.ever_present().any(dim=0)
        return [target for target, there in zip(self.targets, present.tolist(), strict=True) if not there]

    def unread(self) -> list[Target]:
        """Those of the missing targets that prompts hold where the model reads no more."""
        images, steps, missing = range(len(self.prompts)), self.changes(), set(self.missing())
        found = [self.found(image, step) for image in images for step in steps]
        pairs = [pair for places in found for pair in zip(self.targets, places, strict=True)]
        written = {target for target, where in pairs if where.occurrences}
        return [target for target in self.targets if target in written & missing]

    def weights(self, image: int, part: int, step: int, context: int, device: torch.device | str = "cpu") -> Tensor:
        """Weights ``[context, T]`` of the tokens of one ``AND`` part for each target.

        A softmax over ``context`` tokens, multiplied with them, gives each target's mean token map.
        Summed over the parts of an image the weights of a present target make 1.
        It is the same tensor as before where nothing has changed.
        """

        def make() -> Tensor:
            found = self.found(image, step)
            weights = torch.zeros(context, len(found))
            for column, where in enumerate(found):
                count = sum(len(positions) for _, positions in where.occurrences)
                for position in where.positions(part):
                    if 0 <= position < context:  # the host may cut a prompt's context short
                        weights[position, column] += 1 / count
            return weights.to(device)

        return self._once(("weights", *self._state(image, step), part, context, device), make)

    def _state(self, image: int, step: int) -> tuple[tuple[str, ...], Set[Target] | None]:
        """The texts of the image's parts and the targets meant for it: all that decides places."""
        texts = tuple(_active(part, step) for part in self.prompts[image])
        return texts, None if self.named is None else frozenset(self.named[image])

    def _find(self, texts: Sequence[str], named: Set[Target] | None) -> list[Found]:
        parts = [self._spelling(text) for text in texts]
        return [
            find(parts, self._spelling(target.text), target) if named is None or target in named else Found(())
            for target in self.targets
        ]

    def _spelling(self, text: str) -> Spelling:
        return self._once(("spelling", text), lambda: Spelling(self.tokenize(text)))

    def _once(self, key: Hashable, make: Callable[[], _T]) -> _T:
        if key not in self._made:
            self._made[key] = make()
        made: _T = self._made[key]
        return made


def _active(schedule: Scheduled, step: int) -> str:
    # Past the last entry the WebUI takes the first one.
    return next((text for end, text in schedule if step <= end), schedule[0][1])
