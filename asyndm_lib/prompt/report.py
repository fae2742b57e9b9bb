"""Which tokens of one prompt stand for which target word: what can be told before a picture is made."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ..errors import AsynDMError
from .prompt_targets import PromptTargets, Scheduled, Tokenize
from .target_list import Target, parse_targets

CHUNK = 77
"""Rows of the cross-attention context that a chunk of the prompt has, its start token included."""

_WEIGHT = re.compile(r":\s*[-+.\d]+\s*(?=[)\]])")
_WORD = re.compile(r'[^\s,;:!?()\[\]{}|\\"<>]+')


def match(parts: Sequence[Scheduled], listed: str, tags: str, tokenize: Tokenize) -> dict[str, Any]:
    """Where the targets stand in a prompt given as its ``AND`` ``parts``; ready for ``json.dumps``.

    ``listed``, ``tags``: two target lists, the person's and that of the prompt's tags. The answer holds

    - ``targets``: per target ``text``, ``occurrence``, ``concavity``, ``tagged`` (in the tags only), ``found``, and
      ``occurrences``: where it stands, each with its ``part`` (from 0) and ``tokens`` (``chunk`` and ``index`` in it,
      from 0; a chunk's token 0 is its start token). All that the prompt is at any step counts.
    - ``words``: per different word of the prompt ``text`` and the number of its ``tokens``.
    - ``tags``: the tags' target list.
    - ``error``: None, or why the target lists cannot be read; ``targets`` is then empty.
    """
    answer = {"targets": [], "words": _words(parts, tokenize), "tags": tags, "error": None}
    try:
        own, tagged = parse_targets(listed), parse_targets(tags)
        targets = parse_targets(f"{listed}, {tags}")
    except AsynDMError as error:
        return {**answer, "error": str(error)}
    places = _places(parts, targets, tokenize)
    for target, where in zip(targets, places, strict=True):
        answer["targets"].append(
            {
                "text": target.text,
                "occurrence": target.occurrence,
                "concavity": target.concavity,
                "tagged": target in tagged and target not in own,
                "found": bool(where),
                "occurrences": [_occurrence(part, positions) for part, positions in where],
            }
        )
    return answer


def _places(
    parts: Sequence[Scheduled], targets: Sequence[Target], tokenize: Tokenize
) -> list[list[tuple[int, tuple[int, ...]]]]:
    """Per target its ``(part, positions)`` at any step, in the prompt's order."""
    prompt = PromptTargets(targets, [parts], tokenize)
    steps = {end for part in parts for end, _ in part} | {0}
    places: list[set] = [set() for _ in targets]
    for step in sorted(steps):
        for places_of_one, found in zip(places, prompt.found(0, step), strict=True):
            places_of_one.update(found.occurrences)
    return [sorted(places_of_one) for places_of_one in places]


def _occurrence(part: int, positions: Sequence[int]) -> dict[str, Any]:
    tokens = [{"chunk": position // CHUNK, "index": position % CHUNK} for position in positions]
    return {"part": part, "tokens": tokens}


def _words(parts: Sequence[Scheduled], tokenize: Tokenize) -> list[dict[str, Any]]:
    texts = (_WEIGHT.sub("", text) for part in parts for _, text in part)
    found = (word.strip(".") for text in texts for word in _WORD.findall(text))
    words = dict.fromkeys(word for word in found if word and word != "BREAK")
    return [{"text": word, "tokens": len(tokenize(word))} for word in words]
