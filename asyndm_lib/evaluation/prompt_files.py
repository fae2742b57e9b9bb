"""Prompts from a person's file: the JSON of AsynDM's authors, a JSON list, or plain text."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import AsynDMError
from ..prompt.target_list import parse_targets
from .prompts import Prompt

Entry = tuple[str, Callable[[], str]]
"""A prompt's text, and what gives its target list or raises :class:`AsynDMError`."""


def read(path: Path, say: Callable[[str], None] = print) -> list[Prompt]:
    """The prompts of a file.

    The authors' format is an object with ``item_idx`` and ``item_k``. ``item_idx`` has the numbers
    of each prompt's target words, counted from 0 and parted by blanks; ``item_k`` has their
    concavities. Any other JSON is a list of prompts. A text file has a prompt a line, and after a
    tab its target list if it has one. Without targets they are chosen from the prompt. The texts
    of JSON are kept as they are, with blanks at their ends.

    An entry whose targets do not fit its prompt is left out, and ``say`` is told so. Raises
    :class:`AsynDMError` for a file that is none of these, or of which no entry is left.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise AsynDMError(f"the prompts {path} cannot be read: {error}") from error
    prompts, unfit = [], []
    for one, targets in _of_json(path, text) if path.suffix.lower() == ".json" else _of_lines(text):
        try:
            own = targets()
            parse_targets(own)
        except AsynDMError as error:
            unfit.append(f"{one!r:.60}: {error}")
        else:
            prompts.append(Prompt(one, own))
    if not prompts:
        raise AsynDMError(f"{path} holds no prompts" + (f" that fit their targets: {unfit[0]}" if unfit else ""))
    for why in unfit:
        say(f"skipped in {path.name}, {why}")
    return prompts


def _of_lines(text: str) -> Iterator[Entry]:
    for line in text.splitlines():
        if line.strip():
            prompt, _, targets = line.partition("\t")
            yield prompt.strip(), targets.strip


def _of_json(path: Path, text: str) -> Iterator[Entry]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise AsynDMError(f"{path} is no JSON: {error}") from error
    if isinstance(content, list) and all(isinstance(one, str) for one in content):
        yield from ((one, lambda: "") for one in content)
        return
    items = content.get("item_idx") if isinstance(content, dict) else None
    concavities = content.get("item_k", {}) if isinstance(content, dict) else None
    if not isinstance(items, dict) or not isinstance(concavities, dict):
        raise AsynDMError(f"{path} holds neither a list of prompts nor the object item_idx")
    for one, numbers in items.items():
        yield one, partial(_numbered, one, numbers, concavities.get(one))


def _numbered(text: str, numbers: Any, concavities: Any) -> str:
    """The target list that the authors' numbers make, as in ``cat:0.7, dog#2:0.3``.

    Raises :class:`AsynDMError` if they do not fit the prompt.
    """
    words = [word.strip(".,;:!?\"'()") for word in text.split()]
    if not isinstance(numbers, list) or not isinstance(concavities, list | None):
        raise AsynDMError("item_idx and item_k must hold lists")
    own = [None] * len(numbers) if concavities is None else concavities
    if len(own) != len(numbers):
        raise AsynDMError("item_k and item_idx are not equally long")
    entries = []
    for number, concavity in zip(numbers, own, strict=True):
        if not isinstance(number, int) or not 0 <= number < len(words) or not words[number]:
            raise AsynDMError(f"there is no word number {number}; they count from 0")
        if not isinstance(concavity, int | float | None):
            raise AsynDMError(f"the concavity {concavity!r:.40} is not a number")
        word = words[number]
        same = [other.lower() for other in words].count(word.lower())
        nth = f"#{[other.lower() for other in words[: number + 1]].count(word.lower())}" if same > 1 else ""
        entries.append(f"{word}{nth}" + ("" if concavity is None else f":{concavity:g}"))
    return ", ".join(entries)
