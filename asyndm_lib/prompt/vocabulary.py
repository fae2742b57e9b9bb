"""The vocabularies of the tokenizers: what text a token stands for.

CLIP's tokenizers, OpenCLIP's among them, know no blanks. Those of T5, Gemma and UMT5
(SentencePiece) and of Qwen and Mistral (bytes) make blanks parts of tokens.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from .token_search import Token

WORD_END = "</w>"
BLANK = "\N{LOWER ONE EIGHTH BLOCK}"
"""How SentencePiece writes a blank."""

_BYTE = re.compile("<0x([0-9A-F]{2})>")
_SPECIAL = re.compile(r"<(unk|pad|/?s|bos|eos|extra_id_\d+|\|\w+\|)>")

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


def spaced(
    pieces: Iterable[tuple[int, int, str]], text: Callable[[str], bytes | None], reading: int = 0
) -> Iterator[Token]:
    """The tokens of a tokenizer that makes blanks parts of tokens.

    ``pieces``: the id of each, its position, and how the vocabulary writes it. ``text``:
    :func:`sentence_text` or :func:`byte_text`. ``reading``: see :class:`Token`.
    """
    apart = True
    for key, position, name in pieces:
        spelled = text(name)
        if spelled is None:
            yield Token(key, position, True, reading=reading)
            apart = True
            continue
        # Bytes that are no whole character stay as they are.
        spelled = spelled.decode("utf-8", "surrogateescape").lower().encode("utf-8", "surrogateescape")
        bare = spelled.strip()
        yield Token(key, position, False, bare, apart or spelled[:1].isspace(), reading)
        apart = spelled[-1:].isspace() or (apart and not bare)


def sentence_text(name: str) -> bytes | None:
    """The UTF-8 bytes of a piece of SentencePiece, its blanks included; None for a special one."""
    if byte := _BYTE.fullmatch(name):
        return bytes([int(byte[1], 16)])
    return None if _SPECIAL.fullmatch(name) else name.replace(BLANK, " ").encode()


def byte_text(name: str) -> bytes | None:
    """The UTF-8 bytes of a token of bytes, its blanks included; None for a special one."""
    return None if _SPECIAL.fullmatch(name) else _text(name)


def _text(name: str) -> bytes | None:
    """The UTF-8 bytes of a token's text; None for a name in another alphabet than CLIP's."""
    try:
        return bytes(_ALPHABET[char] for char in name)
    except KeyError:
        return None
