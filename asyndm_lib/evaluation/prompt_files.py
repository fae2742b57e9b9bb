"""Prompts from a person's file: the JSON of AsynDM's authors, a JSON list, or plain text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import AsynDMError, TargetError
from ..prompt.target_list import parse_targets
from .prompts import Prompt


def read(path: Path) -> list[Prompt]:
    """The prompts of a file.

    The authors' format is an object with ``item_idx`` and ``item_k``. ``item_idx`` has the numbers
    of each prompt's target words, counted from 0 and parted by blanks; ``item_k`` has their
    concavities. Any other JSON is a list of prompts. A text file has a prompt a line, and after a
    tab its target list if it has one. Without targets they are chosen from the prompt.

    Raises :class:`AsynDMError` for a file that is none of these.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise AsynDMError(f"the prompts {path} cannot be read: {error}") from error
    if path.suffix.lower() != ".json":
        lines = [line.split("\t", 1) for line in text.splitlines() if line.strip()]
        prompts = [Prompt(line[0].strip(), line[1].strip() if len(line) > 1 else "") for line in lines]
    else:
        try:
            content = json.loads(text)
        except ValueError as error:
            raise AsynDMError(f"{path} is no JSON: {error}") from error
        prompts = _of_json(path, content)
    if not prompts:
        raise AsynDMError(f"{path} holds no prompts")
    for prompt in prompts:
        try:
            parse_targets(prompt.targets)
        except TargetError as error:
            raise AsynDMError(f"{path}, {prompt.text!r:.60}: {error}") from error
    return prompts


def _of_json(path: Path, content: Any) -> list[Prompt]:
    if isinstance(content, list) and all(isinstance(text, str) for text in content):
        return [Prompt(text, "") for text in content]
    items = content.get("item_idx") if isinstance(content, dict) else None
    if not isinstance(items, dict):
        raise AsynDMError(f"{path} holds neither a list of prompts nor the object item_idx")
    concavities = content.get("item_k", {})
    prompts = []
    for text, numbers in items.items():
        own = concavities.get(text, [None] * len(numbers))
        if len(own) != len(numbers):
            raise AsynDMError(f"{path}, {text!r:.60}: item_k and item_idx are not equally long")
        prompts.append(Prompt(text, targets(path, text, numbers, own)))
    return prompts


def targets(path: Path, text: str, numbers: Sequence[int], concavities: Sequence[float | None]) -> str:
    """The target list that the authors' numbers make, as in ``cat:0.7, dog#2:0.3``."""
    words = [word.strip(".,;:!?\"'()") for word in text.split()]
    entries = []
    for number, concavity in zip(numbers, concavities, strict=True):
        if not isinstance(number, int) or not 0 <= number < len(words) or not words[number]:
            raise AsynDMError(f"{path}, {text!r:.60}: there is no word number {number}")
        word = words[number]
        same = [other.lower() for other in words].count(word.lower())
        nth = f"#{[other.lower() for other in words[: number + 1]].count(word.lower())}" if same > 1 else ""
        entries.append(f"{word}{nth}" + ("" if concavity is None else f":{concavity:g}"))
    return ", ".join(entries)
