"""The vocabulary of CLIP's tokenizers, OpenCLIP's among them: what text a token stands for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from .token_search import Token

WORD_END = "</w>"

_AHEAD = 32
"""How many tokens the words may have in place of a textual inversion."""

_PRINTED = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_ALPHABET = {chr(byte): byte for byte in _PRINTED} | {
    chr(0x100 + n): byte for n, byte in enumerate(sorted({*range(0x100)} - {*_PRINTED}))
}
"""A character of the vocabulary → the byte that it stands for."""


def text_token(key: int, position: int, name: str) -> Token:
    """The token ``key`` at a row of the context. ``name``: how the vocabulary writes it."""
    return Token(key, position, name.endswith(WORD_END), _text(name.removesuffix(WORD_END)))


def as_written(tokens: Sequence[Token], words: Iterable[Sequence[int]]) -> list[Token]:
    """A text's tokens, which know no blanks, told apart where the text has something between them.

    ``words``: the ids of the text's words, divided at blanks, each tokenized by itself. A token
    that is not among them, as a textual inversion is not, stands apart.
    """
    expected = [(key, at == 0) for word in words for at, key in enumerate(word)]
    found: list[Token] = []
    at, ended = 0, True
    for token in tokens:
        ahead = (n for n in range(at, min(at + _AHEAD, len(expected))) if expected[n][0] == token.key)
        place = next(ahead, None)
        begins = place is None or expected[place][1]
        at = at if place is None else place + 1
        found.append(replace(token, apart=begins and ended))
        ended = token.ends_word
    return found


def _text(name: str) -> bytes | None:
    """The UTF-8 bytes of a token's text; None for a name in another alphabet than CLIP's."""
    try:
        return bytes(_ALPHABET[char] for char in name)
    except KeyError:
        return None
