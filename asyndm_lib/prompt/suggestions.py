"""The words of a prompt, and those that may have been meant by a target that is not among them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher

from .target_list import Target

MOST = 2
"""How many words are suggested at most."""

ALIKE = 0.6
"""From which ratio of ``difflib`` on a word is alike."""

_LETTERS, _WORDS = 40, 400
"""The longest word that is compared, and how many of a prompt's are: the time is their product."""

_WEIGHT = re.compile(r":\s*[-+.\d]+\s*(?=[)\]])")
_WORD = re.compile(r'[^\s,;:!?()\[\]{}|\\"<>]+')


def words_of(texts: Iterable[str]) -> list[str]:
    """The different words of ``texts``, which may hold emphasis and prompt editing, in order."""
    return list(dict.fromkeys(_in_row(texts)))


def nearest(target: Target, texts: Iterable[str]) -> list[str]:
    """The words of a prompt, whose ``texts`` these are, that are most like ``target``.

    As many words in a row are compared, word by word, as the target has; and what it is without
    blanks. There may be none. The target's own words count if another occurrence than theirs was
    asked for.
    """
    sought = " ".join(target.text.split()).casefold()
    length, joined = len(sought.split()), sought.replace(" ", "")
    if not sought or len(sought) > _LETTERS:
        return []
    words = _in_row(texts)[:_WORDS]
    found: dict[str, float] = {}
    for at in range(len(words) - length + 1):
        here = " ".join(words[at : at + length])
        key = here.casefold()
        if here not in found and len(here) <= _LETTERS and (key != sought or target.occurrence is not None):
            found[here] = min(map(_likeness, sought.split(), key.split()))
    found |= {word: 1.0 for word in words if length > 1 and word.casefold() == joined}
    alike = [word for word, ratio in found.items() if ratio >= ALIKE or _holds(word, sought)]
    return sorted(alike, key=lambda word: -found[word])[:MOST]


def question(absent: Iterable[Target], texts: Sequence[str]) -> str:
    """The words of a prompt that may have been meant by the targets ``absent`` from it, as the end
    of a message; it is empty where there are none.
    """
    words = dict.fromkeys(f'"{word}"' for target in absent for word in nearest(target, texts))
    return f" (did you mean {' or '.join(words)}?)" if words else ""


def _in_row(texts: Iterable[str]) -> Sequence[str]:
    found = (word.strip(".") for text in texts for word in _WORD.findall(_WEIGHT.sub("", text)))
    return [word for word in found if word and word != "BREAK"]


def _likeness(one: str, other: str) -> float:
    return SequenceMatcher(None, one, other, autojunk=False).ratio()


def _holds(word: str, sought: str) -> bool:
    """Whether ``sought`` is a part of a word that is joined of several: cat of cat-like."""
    return sought in re.split(r"[-_']", word.casefold())
