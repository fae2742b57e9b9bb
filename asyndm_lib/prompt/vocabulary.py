"""The vocabulary of CLIP's tokenizers, OpenCLIP's among them: what text a token stands for."""

from __future__ import annotations

from .token_search import Token

WORD_END = "</w>"

_PRINTED = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_ALPHABET = {chr(byte): byte for byte in _PRINTED} | {
    chr(0x100 + n): byte for n, byte in enumerate(sorted({*range(0x100)} - {*_PRINTED}))
}
"""A character of the vocabulary → the byte that it stands for."""


def text_token(key: int, position: int, name: str) -> Token:
    """The token ``key`` at a row of the context. ``name``: how the vocabulary writes it."""
    return Token(key, position, name.endswith(WORD_END), _text(name.removesuffix(WORD_END)))


def _text(name: str) -> bytes | None:
    """The UTF-8 bytes of a token's text; None for a name in another alphabet than CLIP's."""
    try:
        return bytes(_ALPHABET[char] for char in name)
    except KeyError:
        return None
