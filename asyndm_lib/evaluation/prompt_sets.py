"""The prompt sets on which the embedded model is measured."""

from __future__ import annotations

import random
from collections.abc import Sequence

from ..demo.training.concepts import BACKGROUNDS, CONCEPTS, UNSEEN, Concept
from .prompts import PLACES, Prompt

NUMBERS = {2: "two", 3: "three", 4: "four"}
SHAPES = tuple(c for c in CONCEPTS if c.name.split()[-1] in ("heart", "square", "circle", "book"))
"""Things that come in several colours."""


def phrase(concept: Concept, count: int) -> str:
    """"a cat", "an apple", "two cats"."""
    if count > 1:
        return f"{NUMBERS[count]} {concept.plural}"
    vowel = concept.name[0] in "aeiou" and not concept.name.startswith("uni")
    return f"{'an' if vowel else 'a'} {concept.name}"


def compose(groups: Sequence[tuple[Concept, int]], place: str | None = None, background: str | None = None) -> Prompt:
    """The prompt that names these things, as training's captions name them; each thing is a target."""
    phrases = [phrase(*group) for group in groups]
    if place is not None:
        text = f"{phrases[0]} {place} {phrases[1]}"
    else:
        text = ", ".join(phrases[:-1]) + (" and " if len(phrases) > 1 else "") + phrases[-1]
    if background is not None:
        text += f" on {'an' if background[0] in 'aeiou' else 'a'} {background} background"
    targets = ", ".join(concept.plural if count > 1 else concept.name for concept, count in groups)
    return Prompt(text, targets, tuple((concept.name, count) for concept, count in groups), place)


def things(parts: Sequence[int], rng: random.Random, pool: Sequence[Concept] = CONCEPTS) -> list[tuple[Concept, int]]:
    """Different things of ``pool``, so many of each."""
    return list(zip(rng.sample(pool, len(parts)), parts, strict=True))
