"""The prompt sets on which models are measured."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..demo.training.concepts import CONCEPTS, Concept
from ..demo.training.scenery import SCENERIES
from .prompts import PLACES, Prompt

NUMBERS = {2: "two", 3: "three", 4: "four"}
SHAPES = tuple(c for c in CONCEPTS if c.name.split()[-1] in ("heart", "square", "circle", "book"))
"""Things that come in several colours."""


def phrase(concept: Concept, count: int) -> str:
    """The words for ``count`` things of a kind: "a cat", "an apple", "two cats"."""
    if count > 1:
        return f"{NUMBERS[count]} {concept.plural}"
    vowel = concept.name[0] in "aeiou" and not concept.name.startswith("uni")
    return f"{'an' if vowel else 'a'} {concept.name}"


def compose(groups: Sequence[tuple[Concept, int]], place: str | None = None, surroundings: str | None = None) -> Prompt:
    """The prompt that names these things, in the words of the training captions. Each thing is a
    target.

    ``surroundings`` are words at its end.
    """
    phrases = [phrase(*group) for group in groups]
    if place is not None:
        text = f"{phrases[0]} {place} {phrases[1]}"
    else:
        text = ", ".join(phrases[:-1]) + (" and " if len(phrases) > 1 else "") + phrases[-1]
    if surroundings is not None:
        text += f" {surroundings}"
    targets = ", ".join(concept.plural if count > 1 else concept.name for concept, count in groups)
    return Prompt(text, targets, tuple((concept.name, count) for concept, count in groups), place)


def things(parts: Sequence[int], rng: random.Random, pool: Sequence[Concept] = CONCEPTS) -> list[tuple[Concept, int]]:
    """Different things of ``pool``, with the number of each from ``parts``."""
    return list(zip(rng.sample(pool, len(parts)), parts, strict=True))


@dataclass(frozen=True)
class PromptSet:
    """One set of prompts in two halves.

    ``tuning``: prompts that choices may be made on. ``report``: prompts that no choice has seen.
    """

    name: str
    tuning: tuple[Prompt, ...]
    report: tuple[Prompt, ...]


PromptMaker = Callable[[random.Random], Prompt]


def sets(kinds: Mapping[str, Sequence[PromptMaker]], count: int = 50) -> tuple[PromptSet, ...]:
    """The prompt sets of ``kinds`` (:data:`PLAIN` or :data:`SCENERY`), with ``count`` prompts in
    each half.

    The halves have the same mixture and no prompt in common. The difficulty was chosen so that the
    ordinary picture is right in 40 to 80 % of cases.
    """
    return tuple(_set(name, makers, count) for name, makers in kinds.items())


def _set(name: str, makers: Sequence[PromptMaker], count: int) -> PromptSet:
    rng, prompts = random.Random(name), []
    for number in range(2 * count):
        prompt = makers[number // 2 % len(makers)](rng)
        while prompt in prompts:
            prompt = makers[number // 2 % len(makers)](rng)
        prompts.append(prompt)
    return PromptSet(name, tuple(prompts[::2]), tuple(prompts[1::2]))


def _of(*parts: int) -> PromptMaker:
    return lambda rng: compose(things(parts, rng))


def _placed(place: str) -> PromptMaker:
    return lambda rng: compose(things((1, 1), rng), place)


def _coloured(count: int, same: bool, scenery: bool = False) -> PromptMaker:
    """Prompts of ``count`` coloured shapes, of one shape or of any."""

    def make(rng: random.Random) -> Prompt:
        shape = rng.choice(("heart", "square", "circle"))
        pool = [c for c in SHAPES if c.name.endswith(shape)] if same else SHAPES
        surroundings = rng.choice(SCENERIES).phrases[0] if scenery else None
        return compose(things((1,) * count, rng, pool), surroundings=surroundings)

    return make


def _in_a_scenery(*parts: int, belonging: bool) -> PromptMaker:
    """Prompts of things that all belong in a scenery, or of which none does."""

    def make(rng: random.Random) -> Prompt:
        scenery = rng.choice(SCENERIES)
        pool = [concept for concept in CONCEPTS if (concept.name in scenery.things) == belonging]
        return compose(things(parts, rng, pool), surroundings=scenery.phrases[0])

    return make


PLAIN: dict[str, Sequence[PromptMaker]] = {
    "two objects": [_placed(place) for place in PLACES],
    "counts": [_of(4), _of(2, 1), _of(3, 1), _of(2, 2)],
    "colours": [_coloured(2, True), _coloured(3, True), _coloured(3, False), _coloured(4, False)],
    # Training never showed the last two kinds: five things, and two times two beside another one.
    "three or more": [_of(1, 1, 1), _of(1, 1, 1, 1), _of(3, 2), _of(2, 2, 1)],
}
"""The sets of scenes on plain backgrounds, for the embedded model."""

SCENERY: dict[str, Sequence[PromptMaker]] = {
    "at home": [_in_a_scenery(*parts, belonging=True) for parts in ((1, 1, 1), (2, 2), (2, 1, 1), (1, 1, 1, 1))],
    "out of place": [_in_a_scenery(*parts, belonging=False) for parts in ((1, 1, 1), (2, 1), (2, 1, 1), (1, 1, 1, 1))],
    "counts there": [_in_a_scenery(*parts, belonging=True) for parts in ((4,), (2, 2), (3, 1), (3, 2))],
    "colours there": [_coloured(*shapes, True) for shapes in ((2, True), (3, True), (3, False), (4, False))],
}
"""The same kinds of scenes in a scenery, where things belong or do not."""
