"""The grammar of the target list, ``cat, red heart:0.5, dog#2``, and of a prompt's tags.

A tag stands in the prompt and holds a target list: ``<asyn:red heart:0.5>``.
The page reads both by the same grammar (javascript/asyndm-prompt.js).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import TargetError

MAX_TARGETS = 64
MAX_LENGTH = 4000
"""Characters of the whole list, the tags of the prompt included."""

_LAST_OCCURRENCE = 999_999_999

_NETWORK = re.compile(r"<(\w+):([^>]+)>")  # as the WebUIs find <lora:name:1>
_PIECE = re.compile(r"\\.|\S|\n", re.DOTALL)
_CLOSING = {"(": ")", "[": "]"}
_DIVIDERS = ",\n\N{FULLWIDTH COMMA}\N{IDEOGRAPHIC COMMA}"
_QUOTATION = re.compile(
    f'"[^"]*"(?=\\s*(?:[{_DIVIDERS}:\N{FULLWIDTH COLON}#\N{FULLWIDTH NUMBER SIGN})\\]]|$))'
)
_CONCAVITY = re.compile("[:\N{FULLWIDTH COLON}]([^:\N{FULLWIDTH COLON}()\\[\\]]*)$")
_OCCURRENCE = re.compile("[#\N{FULLWIDTH NUMBER SIGN}]\\s*(\\d+)$")
_WEIGHT = re.compile(r":\s*[-+]?[.\d]+\s*$")


@dataclass(frozen=True)
class Target:
    """One entry of the list.

    ``text``: the words as they stand in the prompt, without emphasis and quotes.
    ``occurrence``: which one of several (from 1), or None for all.
    ``concavity``: its own ``k``, or None for the general one.
    """

    text: str
    occurrence: int | None = None
    concavity: float | None = None

    def __str__(self) -> str:
        return self.text if self.occurrence is None else f"{self.text}#{self.occurrence}"


def tagged(prompt: str) -> list[str]:
    """The target lists in the ``<asyn:cat>`` tags of a prompt, in order."""
    found: list[str] = []

    def keep(tag: str) -> str:
        found.append(tag.removeprefix("<asyn:").removesuffix(">"))
        return tag

    replace_tags(prompt, keep)
    return found


def replace_tags(prompt: str, replacement: Callable[[str], str]) -> str:
    """The prompt with ``replacement(tag)`` in place of each ``<asyn:…>`` tag.

    A tag ends with the first ``>``, and may hold anything else.
    """
    # No tag can begin behind the last ">"; to look for one takes the square of the prompt's length.
    end = prompt.rfind(">") + 1
    return _NETWORK.sub(lambda tag: replacement(tag[0]) if tag[1] == "asyn" else tag[0], prompt[:end]) + prompt[end:]


def named_targets(listed: str, prompt: str) -> tuple[Target, ...]:
    """The targets of a list and of a prompt's tags together; see :func:`parse_targets`."""
    return parse_targets(listed, *tagged(prompt))


def parse_targets(*lists: str) -> tuple[Target, ...]:
    """The targets of one or more target lists, each once.

    An empty list gives none, and so does one of blanks and commas.
    Raises :class:`TargetError` that names the entry that cannot be read, or what is too long.
    """
    length = len(", ".join(filter(None, lists)))
    if length > MAX_LENGTH:
        raise TargetError(f"the list of targets is {length} characters long; at most {MAX_LENGTH} are read")
    entries = [entry for text in lists for entry in _entries(text)]
    if len(entries) > MAX_TARGETS:
        raise TargetError(f"{len(entries)} targets are named; at most {MAX_TARGETS} can be")
    return tuple(dict.fromkeys(map(_target, entries)))


def _entries(text: str) -> list[str]:
    """The list divided at the commas of any keyboard and the line ends.

    Those in brackets or quotes divide nothing.
    """
    parts, start, end = [], 0, -1
    partners = _partners(text)
    for at, char in enumerate(text):
        if at > end and at in partners:
            end = partners[at]
        elif at > end and char in _DIVIDERS:
            parts.append(text[start:at])
            start = at + 1
    return [entry for part in [*parts, text[start:]] if (entry := part.strip())]


def _partners(text: str) -> dict[int, int]:
    """The place of each opening bracket or quote that is closed → the place where it is closed.

    A bracket without its partner is an ordinary character, and so is an escaped one, ``\\(``.
    A quote opens at the beginning of an entry, or of its brackets, if there is nothing behind the
    next one but the entry's numbers and brackets. Brackets in quotes are ordinary characters.
    """
    opened: list[int] = []
    partners = {}
    begins, resume = True, 0
    for piece in _PIECE.finditer(text):
        at, char = piece.start(), piece[0]
        if at < resume:
            continue
        if begins and char == '"' and (quotation := _QUOTATION.match(text, at)):
            resume = quotation.end()
            partners[at] = resume - 1
        elif char in _CLOSING:
            opened.append(at)
        elif opened and char == _CLOSING[text[opened[-1]]]:
            partners[opened.pop()] = at
        begins = char in _DIVIDERS or (begins and char in _CLOSING)
    return partners


def _target(entry: str) -> Target:
    partners = _partners(entry)
    start, end = 0, len(entry)  # what is left of the entry
    concavity, occurrence = None, None
    if match := _CONCAVITY.search(entry, _behind(partners, start)):
        typed = match[1].strip()
        try:
            concavity = float(typed)
        except ValueError:
            refused = f"{typed!r:.40} after the colon is not a number from 0 to 1"
        else:
            refused = "" if 0 <= concavity <= 1 else f"the concavity {typed:.40} is not from 0 to 1"
        if not refused:
            start, end = _stripped(entry, start, match.start())
        elif typed and match.start() == 0:
            concavity = None  # ":3" and ":D" are faces
        else:
            raise TargetError(f"target {entry!r:.80}: {refused}")
    while True:
        # Emphasis may stand around the number as well as before it: (cat#2:1.3), (cat:1.3)#2.
        if occurrence is None and (match := _OCCURRENCE.search(entry, _behind(partners, start), end)):
            occurrence = min(int(match[1]), _LAST_OCCURRENCE)
            if occurrence < 1:
                raise TargetError(f"target {entry!r:.80}: occurrences count from #1")
            start, end = _stripped(entry, start, match.start())
        if partners.get(start) != end - 1:
            break
        quoted = entry[start] == '"'
        start, end = _stripped(entry, start + 1, end - 1)
        if quoted:
            break
        if match := _WEIGHT.search(entry, _behind(partners, start), end):
            start, end = _stripped(entry, start, match.start())
    if start == end:
        raise TargetError(f"target {entry!r:.80} names no word")
    return Target(" ".join(entry[start:end].split()), occurrence, concavity)


def _behind(partners: dict[int, int], start: int) -> int:
    """Where the numbers of an entry may begin: behind the brackets or quotes it begins with."""
    return partners.get(start, start - 1) + 1


def _stripped(text: str, start: int, end: int) -> tuple[int, int]:
    """The part of ``text`` from ``start`` to ``end`` without the blanks around it."""
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    return start, end
