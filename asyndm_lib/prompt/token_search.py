"""The search for a target's tokens in the host's own tokenization of the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .target_list import Target


@dataclass(frozen=True)
class Token:
    """One token of a prompt.

    ``key``: its identity: the id of a text token, or the name of a textual inversion.
    ``position``: its row in the cross-attention context. For CLIP that has 77 rows a chunk, of
    which row 0 is the start token.
    ``ends_word``: whether a word ends with it.
    """

    key: int | str
    position: int
    ends_word: bool


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


def find(parts: Sequence[Sequence[Token]], words: Sequence[Token], target: Target) -> Found:
    """The places of ``target`` in a prompt.

    ``parts``: the tokens of the prompt's ``AND`` parts. ``words``: those of the target's text.
    An occurrence is a run of the same tokens that begins and ends where words do.
    Occurrences count through the parts in order. There may be none.
    """
    keys = [token.key for token in words]
    matches = []
    for part, tokens in enumerate(parts):
        if not keys:
            break
        at = 0
        while at + len(keys) <= len(tokens):
            run = tokens[at : at + len(keys)]
            begins = at == 0 or tokens[at - 1].ends_word
            if begins and run[-1].ends_word and [token.key for token in run] == keys:
                matches.append((part, tuple(token.position for token in run)))
                at += len(keys)
            else:
                at += 1
    if target.occurrence is not None:
        matches = matches[target.occurrence - 1 : target.occurrence]
    return Found(tuple(matches))
