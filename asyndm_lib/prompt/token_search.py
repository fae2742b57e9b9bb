"""The search for a target's tokens in the host's own tokenization of the prompt."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice, takewhile, zip_longest
from typing import NamedTuple

from .target_list import Target

_APOSTROPHES = ("'", "\N{RIGHT SINGLE QUOTATION MARK}")
_HYPHENS = ("-", "_", "\N{HYPHEN}", "\N{NON-BREAKING HYPHEN}", *_APOSTROPHES)
"""Characters that join what stands on both sides to one word."""

_ENDINGS = ("s", "d", "m", "ll", "re", "ve")
"""What an apostrophe joins to a word without making another word of it: the cat's."""

_ZERO_WIDTH_JOINER = "\u200d"
_SKIN_TONES = "\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff"


UNREAD = -1
"""The position of a token that the model does not read."""


@dataclass(frozen=True)
class Token:
    """One token of a prompt.

    ``key``: its identity: the id of a text token, or the name of a textual inversion.
    ``position``: its row in the cross-attention context. For CLIP that has 77 rows a chunk, of
    which row 0 is the start token. It is :data:`UNREAD` where the model does not read the token.
    ``ends_word``: whether a word ends with it.
    ``text``: the UTF-8 bytes of the text that it stands for, in lower case. Several tokens may
    share a character. None where only the key tells tokens apart, as in a textual inversion.
    ``apart``: whether something that no token holds, such as a blank, stands before it.
    ``reading``: which of the readings of a prompt it belongs to, from 0. A model with several text
    encoders in its context reads a prompt once by each.
    """

    key: int | str
    position: int
    ends_word: bool
    text: bytes | None = None
    apart: bool = True
    reading: int = 0


@dataclass(frozen=True)
class Found:
    """The places of a target in one prompt.

    ``occurrences``: ``(part, positions)`` of each, ``part`` being the index of an ``AND`` part.
    """

    occurrences: tuple[tuple[int, tuple[int, ...]], ...]

    def begins_within(self, context: int | None) -> bool:
        """Whether any of its tokens is among the first ``context`` of a part; None for all that the
        model reads.
        """
        places = [position for _, positions in self.occurrences for position in positions if position != UNREAD]
        return bool(places) if context is None else any(position < context for position in places)

    def positions(self, part: int) -> tuple[int, ...]:
        """All token positions in one ``AND`` part, the occurrences together."""
        return tuple(p for where, positions in self.occurrences if where == part for p in positions)


class _Symbol(NamedTuple):
    """A character of a text, or a token that has only a key.

    ``value``: the character, or the key in a tuple.
    ``first``, ``last``: the indexes of the tokens that hold it.
    ``ends``: whether the tokenizer's word ends with it.
    ``apart``: whether something that no token holds, such as a blank, stands before it.
    ``in_word``: whether it is a letter, a digit or a mark upon one.
    ``extends``: whether it changes the character before it, as an accent or an emoji's colour does.
    """

    value: str | tuple[int | str]
    first: int
    last: int
    ends: bool
    apart: bool
    in_word: bool = False
    extends: bool = False


class Spelling:
    """A text as its tokens spell it, in each of its readings."""

    def __init__(self, tokens: Sequence[Token]):
        readings = 1 + max((token.reading for token in tokens), default=0)
        self._readings = [_Reading([t for t in tokens if t.reading == number]) for number in range(readings)]

    def places(self, words: Spelling) -> list[tuple[int, ...]]:
        """The token positions of each occurrence of ``words``, in order, the readings together.

        See :meth:`_Reading.places`.
        """
        found = [own.places(other) for own, other in zip(self._readings, words._readings, strict=False)]
        return [tuple(p for places in one for p in places) for one in zip_longest(*found, fillvalue=())]


class _Reading:
    """A text as the tokens of one reading spell it, blanks aside.

    CLIP's tokenizer makes one token of ``),`` or ``!,``. Words are therefore looked for by the
    characters that the tokens stand for.
    """

    def __init__(self, tokens: Sequence[Token]):
        self._positions = [token.position for token in tokens]
        self._symbols = list(_symbols(tokens))
        self._values = [symbol.value for symbol in self._symbols]
        pairs = list(zip(self._symbols, self._symbols[1:], strict=False))
        self._within = [one.in_word and other.in_word and other.apart for one, other in pairs]
        self._edges = [True, *(_edge(one, other) for one, other in pairs), True]
        self._join()
        self._begins: dict[str | tuple[int | str], list[int]] = {}
        for at, value in enumerate(self._values):
            self._begins.setdefault(value, []).append(at)

    def places(self, words: _Reading) -> list[tuple[int, ...]]:
        """The token positions of each occurrence of ``words``, in order.

        An occurrence begins and ends where words do as they are written. Punctuation divides them,
        but for a hyphen, an underscore or an apostrophe inside a word. A token that holds an end of
        an occurrence and more counts.
        """
        found, end = [], 0
        for at in self._begins.get(words._values[0], ()) if words._values else ():
            if at < end or not self._edges[at] or self._values[at : at + len(words._values)] != words._values:
                continue
            stop = at + len(words._values)
            if self._edges[stop] and self._within[at : stop - 1] == words._within:
                found.append(tuple(self._positions[self._symbols[at].first : self._symbols[stop - 1].last + 1]))
                end = stop
        return found

    def _join(self) -> None:
        """Take the edges away that a hyphen inside a word has, ``cat-like``."""
        for at in range(1, len(self._symbols) - 1):
            before, hyphen, after = self._symbols[at - 1 : at + 2]
            joins = hyphen.value in _HYPHENS and not hyphen.apart and not after.apart
            if joins and before.in_word and after.in_word:
                self._edges[at] = self._ending(at)
                self._edges[at + 1] = False

    def _ending(self, at: int) -> bool:
        """Whether the apostrophe at ``at`` begins an ending, ``cat's``."""
        if self._values[at] not in _APOSTROPHES:
            return False
        word = takewhile(lambda symbol: symbol.in_word and not symbol.apart, islice(self._symbols, at + 1, at + 4))
        return "".join(str(symbol.value) for symbol in word) in _ENDINGS


def find(parts: Sequence[Spelling], words: Spelling, target: Target) -> Found:
    """The places of ``target`` in a prompt.

    ``parts``: the prompt's ``AND`` parts. ``words``: the target's text.
    Occurrences count through the parts in order. There may be none.
    """
    matches = [(part, positions) for part, spelling in enumerate(parts) for positions in spelling.places(words)]
    if target.occurrence is not None:
        matches = matches[target.occurrence - 1 : target.occurrence]
    return Found(tuple(matches))


def _symbols(tokens: Sequence[Token]) -> Iterator[_Symbol]:
    for has_text, group in groupby(enumerate(tokens), key=lambda token: token[1].text is not None):
        if not has_text:
            for index, token in group:
                yield _Symbol((token.key,), index, index, token.ends_word, token.apart)
            continue
        owners, ends, spelled = [], set(), b""
        for index, token in group:
            spelled += token.text or b""
            owners += [index] * len(token.text or b"")
            if token.ends_word:
                ends.add(len(spelled))
        at = 0
        # A byte that is no character's is a symbol by itself.
        for char in spelled.decode("utf-8", "surrogateescape"):
            end = at + len(char.encode("utf-8", "surrogateescape"))
            apart = tokens[owners[at]].apart and (at == 0 or owners[at - 1] != owners[at])
            kind = unicodedata.category(char)[0]
            extends = kind == "M" or char in _ZERO_WIDTH_JOINER + _SKIN_TONES
            yield _Symbol(char, owners[at], owners[end - 1], end in ends, apart, kind in "LNM", extends)
            at = end


def _edge(one: _Symbol, other: _Symbol) -> bool:
    """Whether a word may end between two symbols, what joins words aside."""
    if not (isinstance(one.value, str) and isinstance(other.value, str)):
        return one.ends
    if other.apart:
        return True
    return not (one.in_word and other.in_word) and not other.extends and one.value != _ZERO_WIDTH_JOINER
