"""Captions of scenes, as tokens that know which object they name."""

from __future__ import annotations

import random
from typing import NamedTuple

from .concepts import CONCEPTS
from .vocabulary import WordEncoder

MAX_TOKENS = 48
_PREFIXES = ("a photo of", "a picture of", "an image of", "a drawing of", "an emoji of", "an illustration of",
             "a cartoon of", "emoji of", "there is", "a scene with")
_SUFFIXES = (", emoji", ", flat design", ", simple", ", high quality", ", clip art", ".", ".", ".")
_NUMBERS = {2: ("two", "two", "two", "2"), 3: ("three", "three", "three", "3"), 4: ("four", "four", "four", "4")}
_BACKGROUND = ("on a {} background", "on a {} background", "on a {} background", "on {} background",
               ", {} background", "in front of a {} background", "with a {} background", "on {}")
_BETWEEN = {
    None: ("and", "and", "and", "and", "and", ",", ", and", "with", "next to", "beside", "and also"),
    "left": ("left of", "to the left of", "on the left of"),
    "right": ("right of", "to the right of", "on the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}
"""Phrases between two objects, by where the first lies, seen from the second. Those under ``None``
fit anywhere."""

_SIDES = {"left": ("on the left", "on the right"), "right": ("on the right", "on the left"),
          "above": ("at the top", "at the bottom"), "below": ("at the bottom", "at the top")}


class Group(NamedTuple):
    """All objects of one concept in a scene. ``index`` is the group's place among the scene's
    masks."""

    concept: int
    count: int
    index: int


class Caption(NamedTuple):
    """A caption, without start and end tokens.

    ``ids``: its tokens. ``groups``: the group that each token names, -1 for none.
    """

    text: str
    ids: list[int]
    groups: list[int]


def noun_phrase(group: Group, rng: random.Random) -> list[tuple[str, int]]:
    """The words for one group, each with the group's index, or -1 where it names nothing."""
    concept = CONCEPTS[group.concept]
    if group.count > 1:
        head = rng.choice(_NUMBERS[group.count])
        name = concept.plural
    else:
        name = concept.name
        article = "an" if name[0] in "aeiou" and not name.startswith("uni") else "a"
        draw = rng.random()
        head = article if draw < 0.85 else "" if draw < 0.92 else "one" if draw < 0.96 else "the"
    return _plain(head) + [(word, group.index) for word in name.split()]


def _plain(text: str) -> list[tuple[str, int]]:
    return [(word, -1) for word in text.replace(",", " , ").split()]


def compose(groups: list[Group], background: str | None, direction: str | None, rng: random.Random,
            surroundings: str | None = None) -> list[tuple[str, int]]:
    """The words of a caption, each with the index of the group that it names, or -1.

    ``direction`` is where the first group lies, seen from the second; None if that is not to be
    said. ``surroundings`` are words at the end, in place of a ``background``'s colour.
    """
    order = list(groups)
    words: list[tuple[str, int]] = []
    if rng.random() < 0.45:
        words += _plain(rng.choice(_PREFIXES))
    if len(order) == 2:
        first, second = order
        if direction is not None and rng.random() < 0.4:
            if rng.random() < 0.2:
                near, far = _SIDES[direction]
                words += noun_phrase(first, rng) + _plain(near) + _plain("and")
                words += noun_phrase(second, rng) + _plain(far)
            else:
                words += noun_phrase(first, rng) + _plain(rng.choice(_BETWEEN[direction])) + noun_phrase(second, rng)
        else:
            if rng.random() < 0.5:
                first, second = second, first
            words += noun_phrase(first, rng) + _plain(rng.choice(_BETWEEN[None])) + noun_phrase(second, rng)
    else:
        rng.shuffle(order)
        style = rng.random()
        for place, group in enumerate(order):
            if place:
                last = place == len(order) - 1
                words += _plain("and" if style < 0.2 else "," if style < 0.4 or not last else
                                "and" if style < 0.75 else ", and")
            words += noun_phrase(group, rng)
    if background is not None:
        phrase = rng.choice(_BACKGROUND).format(background)
        words += _plain(phrase.replace("a orange", "an orange"))
    if surroundings is not None:
        words += _plain(surroundings)
    if rng.random() < 0.08:
        words += _plain(rng.choice(_SUFFIXES))
    return words


def tokenise(words: list[tuple[str, int]], encode: WordEncoder) -> Caption:
    """The token ids of a caption's words, each with the group that its word names."""
    ids: list[int] = []
    groups: list[int] = []
    for word, group in words:
        tokens = encode(word)
        ids += tokens
        groups += [group] * len(tokens)
    text = " ".join(word for word, _ in words).replace(" ,", ",").replace(" .", ".")
    return Caption(text, ids[:MAX_TOKENS], groups[:MAX_TOKENS])
