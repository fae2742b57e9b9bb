"""Manifests: what the work in a folder is an answer to, so that it is never taken for an answer to
another question."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from ..errors import AsynDMError
from ..hosts.standalone.ldm_checkpoint import files_of

RESULTS = 1
"""Counts the changes to this program by which the same question has other pictures or figures."""

SHOWN = 3
"""How many differences a message names."""


def hold(
    path: Path,
    question: Mapping[str, Any],
    growing: Mapping[str, Mapping[str, Any]] | None = None,
    begun: bool = False,
) -> None:
    """Keep in the file ``path`` what the work beside it is about, or see that it is about the same.

    All values are JSON's. ``question``: what must be equal. ``growing``: named lists in which
    entries of one name must be equal; others may be added. ``begun``: whether there is work
    already.

    Raises :class:`AsynDMError` that names the differences, or says that work has no manifest. A
    person who knows what such work is about writes ``{}`` into the file, and it is taken as it is.
    """
    asked: dict[str, Any] = json.loads(json.dumps({"results": RESULTS, **question}))
    lists: dict[str, Any] = json.loads(json.dumps(growing or {}))
    advice = "give another folder, or move this one away"
    if not path.exists():
        if begun:
            raise AsynDMError(
                f"nobody knows to which question the work in {path.parent} belongs: {path.name} is missing; {advice}, "
                f"or write {{}} into {path.name} if it belongs to this one"
            )
        _write(path, {**asked, **lists})
        return
    try:
        there = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise AsynDMError(f"{path} cannot be read ({error}); {advice}") from error
    if not isinstance(there, dict):
        raise AsynDMError(f"{path} is no manifest; {advice}")
    if there:
        fixed = {name: value for name, value in there.items() if name not in lists}
        different = list(differences(fixed, asked))
        for name, entries in lists.items():
            kept = there.get(name)
            kept = kept if isinstance(kept, dict) else {}
            different += differences({key: kept[key] for key in entries if key in kept},
                                     {key: entry for key, entry in entries.items() if key in kept}, name)
            lists[name] = {**kept, **entries}
        if different:
            more = f"; {len(different) - SHOWN} more" if len(different) > SHOWN else ""
            raise AsynDMError(
                f"{path.parent} holds the work of another question ({'; '.join(different[:SHOWN])}{more}): {advice}"
            )
    if there != {**asked, **lists}:
        _write(path, {**asked, **lists})


def differences(there: Any, here: Any, name: str = "") -> Iterator[str]:
    """Where two values of JSON differ, each with its place and both sides, in one line."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in dict.fromkeys([*there, *here]):
            yield from differences(there.get(key), here.get(key), f"{name} {key}".strip())
    elif isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        for number, pair in enumerate(zip(there, here, strict=True), start=1):
            yield from differences(*pair, f"{name} {number}")
    elif there != here:
        yield f"{name}: {_short(there)} there, {_short(here)} here"


def _short(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, list):
        return f"{len(value)} entries"
    text = " ".join((value if isinstance(value, str) else json.dumps(value)).split())
    return text[:8] if re.fullmatch("[0-9a-f]{64}", text) else text[:40] or '""'


def stated(thing: Any) -> Any:
    """What a dataclass says beyond its defaults, for a question: a field that comes later, with the
    default that was meant before, makes no other question of it."""
    if isinstance(thing, (list, tuple)):
        return [stated(one) for one in thing]
    if not is_dataclass(thing):
        return thing
    values = {f.name: (getattr(thing, f.name), f.default) for f in fields(thing)}
    return {name: stated(value) for name, (value, default) in values.items() if value != default}


def model(path: Path, config: Path | None = None) -> dict[str, Any]:
    """What says which model it is: the checkpoint's name, and a digest of each of its files."""
    return {"model": path.name, "weights": [digest(file) for file in files_of(path, config)]}


def digest(path: Path) -> str:
    """The SHA-256 of a file's content."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**24):
            found.update(block)
    return found.hexdigest()


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(path)
