"""The report on one prompt: which tokens stand for which target, before a picture is made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import AsynDMError
from .prompt_targets import PromptTargets, Scheduled, Tokenize
from .suggestions import nearest, words_of
from .target_list import Target, parse_targets
from .token_search import UNREAD, Token

ROWS = 77
"""Rows of the cross-attention context that a chunk of the prompt has, its start token included."""

Place = tuple[int, tuple[int, ...]]
"""One occurrence of a target: its ``AND`` part and the positions of its tokens."""


def match(
    parts: Sequence[Scheduled], listed: str, tags: Sequence[str], tokenize: Tokenize, rows: int | None = ROWS
) -> dict[str, Any]:
    """Where the targets stand in a prompt; the answer is ready for ``json.dumps``.

    ``parts``: the prompt's ``AND`` parts.
    ``listed``: the person's target list. ``tags``: the target lists in the prompt's tags.
    ``rows``: those of a chunk; None where a prompt is not cut into chunks.
    Of several readings of a prompt the answer is about the first.

    The answer holds

    - ``targets``: per target ``text``, ``occurrence``, ``concavity``, ``tagged`` (in the tags
      only), ``found``, ``unread`` (whether the model reads none of it, though it is found),
      ``nearest`` (words of the prompt that may have been meant by one that is not found), and
      ``occurrences``: where it stands, each with its ``part`` (from 0) and ``tokens`` (``chunk``
      and ``index`` in it, from 0; a chunk of CLIP's has its start token at 0).
      All that the prompt is at any step counts.
    - ``words``: per different word of the prompt ``text`` and the number of its ``tokens``.
    - ``tags``: the tags' target lists as one.
    - ``error``: None, or why the target lists cannot be read; ``targets`` is then empty.
    """
    def first(text: str) -> list[Token]:
        return [token for token in tokenize(text) if not token.reading]

    targets: list[dict[str, Any]] = []
    texts = [text for part in parts for _, text in part]
    error = None
    try:
        own, named = parse_targets(listed), parse_targets(listed, *tags)
    except AsynDMError as refused:
        error = str(refused)
    else:
        for target, places in zip(named, _places(parts, named, first), strict=True):
            known = [(part, [at for at in positions if at != UNREAD]) for part, positions in places]
            read = [(part, positions) for part, positions in known if positions]
            targets.append(
                {
                    "text": target.text,
                    "occurrence": target.occurrence,
                    "concavity": target.concavity,
                    "tagged": target not in own,
                    "found": bool(places),
                    "unread": bool(places) and not read,
                    "nearest": [] if places else nearest(target, texts),
                    "occurrences": [_occurrence(part, positions, rows) for part, positions in read],
                }
            )
    return {
        "targets": targets,
        "words": _words(parts, first),
        "tags": ", ".join(tags),
        "error": error,
    }


def _places(parts: Sequence[Scheduled], targets: Sequence[Target], tokenize: Tokenize) -> list[list[Place]]:
    """Per target its places at any step, in the prompt's order."""
    prompt = PromptTargets(targets, [parts], tokenize)
    places: list[set[Place]] = [set() for _ in targets]
    for step in prompt.changes():
        for own, found in zip(places, prompt.found(0, step), strict=True):
            own.update(found.occurrences)
    return [sorted(own) for own in places]


def _occurrence(part: int, positions: Sequence[int], rows: int | None) -> dict[str, Any]:
    places = [divmod(position, rows) if rows else (0, position) for position in positions]
    tokens = [{"chunk": chunk, "index": index} for chunk, index in places]
    return {"part": part, "tokens": tokens}


def _words(parts: Sequence[Scheduled], tokenize: Tokenize) -> list[dict[str, Any]]:
    words = words_of(text for part in parts for _, text in part)
    return [{"text": word, "tokens": len(tokenize(word))} for word in words]
