"""The rows of a prompt's tokens in a model's context, as the hosts' text engines make them.

CLIP's engines are read by :func:`common.text.tokenizer`. The other engines cut a prompt where its
emphasis changes, and tokenize each segment by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from backend.text_processing import parsing
from modules.shared import opts

from ...errors import Unsupported
from ...prompt.report import ROWS
from ...prompt.token_search import UNREAD, Token
from ...prompt.vocabulary import sentence_text, spaced
from ..common import text

Read = Callable[[str], list[Token]]

BREAK = ["BREAK", -1]


@dataclass(frozen=True)
class Engine:
    """One text engine of the host.

    ``tokenize``: texts → the ids of each. ``names``: ids → how the vocabulary writes them.
    ``spelling``: what text such a name stands for. ``first``: the row of the first token.
    ``before``, ``after``: how many tokens of no text stand around each segment's own, as those of a
    template. ``stops``: whether it reads no further than to a ``BREAK``; to others that is a word.
    ``unread_end``: how many letters of each segment it leaves out. ``emphasis``: the name of the
    host's way to read brackets. ``head``: a prompt → what the engine writes before it.
    """

    tokenize: Callable[[list[str]], Sequence[Sequence[int]]]
    names: Callable[[list[int]], list[str]]
    spelling: Callable[[str], bytes | None]
    emphasis: str
    first: int = 0
    before: int = 0
    after: int = 0
    stops: bool = False
    unread_end: int = 0
    head: Callable[[str], str] = lambda line: ""

    def tokens(self, line: str, first: int = 0, reading: int = 0) -> Iterator[Token]:
        """The tokens of ``line``. ``first``: the row at which the engine's own begin."""
        head = self.head(line)
        hidden = sum(len(ids) for _, ids in self._segments(head)) if head else 0
        at, read = first + self.first, True
        for (segment, weight), ids in self._segments(head + line):
            if self.stops and [segment, weight] == BREAK:
                read = False
                continue
            begin = max(self.before, min(hidden, len(ids)))
            hidden -= min(hidden, len(ids))
            own = [int(key) for key in ids[begin : len(ids) - self.after]]
            places = [at + begin + number if read else UNREAD for number in range(len(own))]
            yield from spaced(zip(own, places, self.names(own), strict=True), self.spelling, reading)
            if self.unread_end and segment:
                end = segment[-self.unread_end :].lower().encode("utf-8", "surrogateescape")
                yield Token("", UNREAD, False, end.strip(), end[:1].isspace(), reading)
            at += len(ids)

    def _segments(self, line: str) -> Iterator[tuple[Sequence[Any], Sequence[int]]]:
        """The segments of ``line``, each with its weight, and the ids of each."""
        parsed = parsing.parse_prompt_attention(line, self.emphasis)
        segments = [segment[: len(segment) - self.unread_end] for segment, _ in parsed]
        return zip(parsed, self.tokenize(segments), strict=True)


def tokenizer(sd_model: Any) -> Read:
    """The tokenization of ``sd_model``. Raises :class:`Unsupported` for a model whose text engine
    is not known.
    """
    # SD 1 and 2 have one of CLIP's, SDXL two that cut a text alike, its refiner the second of them.
    names = ("text_processing_engine", "text_processing_engine_g", "text_processing_engine_l")
    clips = [getattr(sd_model, name) for name in names if hasattr(sd_model, name)]
    t5 = getattr(sd_model, "text_processing_engine_t5", None)
    if t5 is not None:
        engine = t5_engine(t5)
        if hasattr(sd_model, "text_processing_engine_g"):
            return _behind(clips[0], engine)
        return lambda line: list(engine.tokens(line))
    if not clips:
        raise Unsupported(f"the text encoder of this model ({type(sd_model).__name__}) is not one that AsynDM knows")
    return text.tokenizer(clips[0], clips[0].tokenizer.get_vocab())


def chunk(sd_model: Any) -> int | None:
    """How many rows a chunk of the prompt has; None where it is not cut into chunks."""
    names = ("text_processing_engine", "text_processing_engine_g")
    return ROWS if any(hasattr(sd_model, name) for name in names) else None


def t5_engine(engine: Any) -> Engine:
    """T5's engine, whose tokenizer is of SentencePiece."""
    names = engine.tokenizer.convert_ids_to_tokens
    return Engine(engine.tokenize, names, sentence_text, engine.emphasis.name, stops=True)


def _behind(clip: Any, t5: Engine) -> Read:
    """Stable Diffusion 3's context has T5's rows behind CLIP's.

    By an option they are zeros.
    """
    own = text.tokenizer(clip, clip.tokenizer.get_vocab())

    def tokenize(line: str) -> list[Token]:
        tokens = own(line)
        if opts.sd3_enable_t5:
            (chunks,), _ = clip.process_texts([line])
            tokens += t5.tokens(line, sum(len(chunk.tokens) for chunk in chunks), reading=1)
        return tokens

    return tokenize
