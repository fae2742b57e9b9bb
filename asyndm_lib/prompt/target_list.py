"""The grammar of the target list, ``cat, red heart:0.5, dog#2``, and of a prompt's tags, ``<asyn:red heart:0.5>``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import TargetError

MAX_TARGETS = 64
MAX_LENGTH = 4000
"""Characters of the whole list."""

_TAG = re.compile(r"<asyn:([^>]+)>")
_BRACKETS = {"(": ")", "[": "]"}
_CONCAVITY = re.compile(r":([^:()\[\]]*)$")
_OCCURRENCE = re.compile("[#\N{FULLWIDTH NUMBER SIGN}]\\s*(\\d+)$")
_WEIGHT = re.compile(r"\s*[-+.\d]+\s*")


@dataclass(frozen=True)
class Target:
    """One entry of the list.

    ``text``: the words as they stand in the prompt, without emphasis. ``occurrence``: which one of
    several (from 1), or None for all. ``concavity``: its own ``k``, or None for the general one.
    """

    text: str
    occurrence: int | None = None
    concavity: float | None = None

    def __str__(self) -> str:
        return self.text if self.occurrence is None else f"{self.text}#{self.occurrence}"


def tagged(prompt: str) -> str:
    """The target list that the ``<asyn:cat>`` tags of a prompt make, in their order."""
    return ", ".join(_TAG.findall(prompt))


def named_targets(listed: str, prompt: str) -> tuple[Target, ...]:
    """The targets of a list and of a prompt's tags together; see :func:`parse_targets`."""
    return parse_targets(", ".join(filter(None, (listed, tagged(prompt)))))


def parse_targets(text: str) -> tuple[Target, ...]:
    """Read a target list; an empty one, or one of blanks and commas, gives ``()``.

    Raises :class:`TargetError` naming the entry that cannot be read.
    """
    if len(text) > MAX_LENGTH:
        raise TargetError(f"the list of targets is {len(text)} characters long; at most {MAX_LENGTH} are read")
    entries = [entry for entry in (part.strip() for part in _split(text)) if entry]
    if len(entries) > MAX_TARGETS:
        raise TargetError(f"{len(entries)} targets are named; at most {MAX_TARGETS} can be")
    targets: list[Target] = []
    for entry in entries:
        target = _entry(entry)
        if target not in targets:
            targets.append(target)
    return tuple(targets)


def _split(text: str) -> list[str]:
    """At the commas outside brackets; a bracket without its partner is an ordinary character."""
    parts, start, end = [], 0, -1
    partners = _partners(text)
    for at, char in enumerate(text):
        if at > end and at in partners:
            end = partners[at]
        elif at > end and char in ",\n":
            parts.append(text[start:at])
            start = at + 1
    return [*parts, text[start:]]


def _partners(text: str) -> dict[int, int]:
    """Where each opening bracket stands that is closed, and where it is closed."""
    opened, partners = [], {}
    for at, char in enumerate(text):
        if char in _BRACKETS:
            opened.append(at)
        elif opened and char == _BRACKETS[text[opened[-1]]]:
            partners[opened.pop()] = at
    return partners


def _entry(entry: str) -> Target:
    text, concavity, occurrence = entry, None, None
    if match := _CONCAVITY.search(text):
        try:
            concavity = float(match[1])
        except ValueError:
            raise TargetError(
                f"target {entry!r:.80}: {match[1].strip()!r:.40} after the colon is not a number from 0 to 1"
            ) from None
        if not 0 <= concavity <= 1:
            raise TargetError(f"target {entry!r:.80}: the concavity {match[1].strip():.40} is not from 0 to 1")
        text = text[: match.start()].strip()
    if match := _OCCURRENCE.search(text):
        occurrence = int(match[1].lstrip("0")[:9] or 0)
        if occurrence < 1:
            raise TargetError(f"target {entry!r:.80}: occurrences count from #1")
        text = text[: match.start()]
    text = _without_emphasis(text)
    if not text:
        raise TargetError(f"target {entry!r:.80} names no word")
    return Target(text, occurrence, concavity)


def _without_emphasis(text: str) -> str:
    """``((cat))``, ``[cat]`` and ``(cat:1.3)`` as typed in a prompt are the word ``cat``."""
    text = text.strip()
    while _partners(text).get(0) == len(text) - 1:
        text = text[1:-1].strip()
        word, colon, weight = text.rpartition(":")
        if colon and _WEIGHT.fullmatch(weight):
            text = word.strip()
    return " ".join(text.split())
