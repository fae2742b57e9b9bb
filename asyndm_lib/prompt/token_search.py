"""The search for a target's tokens in the host's own tokenization of the prompt."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from .target_list import Target

_ZERO_WIDTH_JOINER = "\u200d"
_SKIN_TONES = "\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff"


@dataclass(frozen=True)
class Token:
    """One token of a prompt.

    ``key``: its identity: the id of a text token, or the name of a textual inversion.
    ``position``: its row in the cross-attention context. For CLIP that has 77 rows a chunk, of
    which row 0 is the start token.
    ``ends_word``: whether a word ends with it.
    ``text``: the UTF-8 bytes of the text that it stands for, in lower case. Several tokens may
    share a character. None where only the key tells tokens apart, as in a textual inversion.
    """

    key: int | str
    position: int
    ends_word: bool
    text: bytes | None = None


@dataclass(frozen=True)
class Found:
    """The places of a target in one prompt.

    ``occurrences``: ``(part, positions)`` of each, ``part`` being the index of an ``AND`` part.
    """

    occurrences: tuple[tuple[int, tuple[int, ...]], ...]

    def begins_within(self, context: int | None) -> bool:
        """Whether any of its tokens is among the first ``context`` of a part; None for all."""
        if context is None:
            return bool(self.occurrences)
        return any(position < context for _, positions in self.occurrences for position in positions)

    def positions(self, part: int) -> tuple[int, ...]:
        """All token positions in one ``AND`` part, the occurrences together."""
        return tuple(p for where, positions in self.occurrences if where == part for p in positions)


@dataclass(frozen=True)
class Symbol:
    """A character of a text, or a token that has only a key.

    ``value``: the character, or the key in a tuple.
    ``first``, ``last``: the indexes of the tokens that hold it.
    ``ends``: whether the tokenizer's word ends with it.
    """

    value: str | tuple[int | str]
    first: int
    last: int
    ends: bool

    @property
    def in_word(self) -> bool:
        """Whether it is a letter, a digit or a mark upon one."""
        return isinstance(self.value, str) and unicodedata.category(self.value)[0] in "LNM"

    @property
    def extends(self) -> bool:
        """Whether it changes the character before it, as an accent or an emoji's colour does."""
        return isinstance(self.value, str) and (
            unicodedata.category(self.value)[0] == "M" or self.value in _ZERO_WIDTH_JOINER + _SKIN_TONES
        )


class Spelling:
    """A text as its tokens spell it, blanks aside.

    CLIP's tokenizer makes one token of ``),`` or ``!,``. Words are therefore looked for by the
    characters that the tokens stand for.
    """

    def __init__(self, tokens: Sequence[Token]):
        self._positions = [token.position for token in tokens]
        self._symbols = list(_symbols(tokens))
        self._values = [symbol.value for symbol in self._symbols]
        self._within = [_within(*pair) for pair in zip(self._symbols, self._symbols[1:], strict=False)]
        self._edges = [True, *(_edge(*pair) for pair in zip(self._symbols, self._symbols[1:], strict=False)), True]

    def places(self, words: Spelling) -> list[tuple[int, ...]]:
        """The token positions of each occurrence of ``words``, in order.

        An occurrence begins and ends where words do, or beside punctuation. A token that holds an
        end of it and more counts.
        """
        size, found, at = len(words._values), [], 0
        while size and at + size <= len(self._values):
            end = at + size
            if (
                self._edges[at]
                and self._edges[end]
                and self._values[at:end] == words._values
                and self._within[at : end - 1] == words._within
            ):
                found.append(tuple(self._positions[self._symbols[at].first : self._symbols[end - 1].last + 1]))
                at = end
            else:
                at += 1
        return found


def find(parts: Sequence[Spelling], words: Spelling, target: Target) -> Found:
    """The places of ``target`` in a prompt.

    ``parts``: the prompt's ``AND`` parts. ``words``: the target's text.
    Occurrences count through the parts in order. There may be none.
    """
    matches = [(part, positions) for part, spelling in enumerate(parts) for positions in spelling.places(words)]
    if target.occurrence is not None:
        matches = matches[target.occurrence - 1 : target.occurrence]
    return Found(tuple(matches))


def _symbols(tokens: Sequence[Token]) -> Iterator[Symbol]:
    for has_text, group in groupby(enumerate(tokens), key=lambda token: token[1].text is not None):
        if not has_text:
            for index, token in group:
                yield Symbol((token.key,), index, index, token.ends_word)
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
            yield Symbol(char, owners[at], owners[end - 1], end in ends)
            at = end


def _within(one: Symbol, other: Symbol) -> bool:
    """Whether a word ends between two letters. Beside punctuation blanks are of no matter."""
    return one.in_word and other.in_word and one.ends


def _edge(one: Symbol, other: Symbol) -> bool:
    """Whether a target may begin or end between two symbols."""
    if one.ends or not (isinstance(one.value, str) and isinstance(other.value, str)):
        return one.ends
    return not (one.in_word and other.in_word) and not other.extends and one.value != _ZERO_WIDTH_JOINER
