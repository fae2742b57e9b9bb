"""Settings → the picture's infotext, and back into the controls.

Written only when on, and only what is not the default, with the targets as the sign that it was on.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import fields
from typing import Any

from ..errors import AsynDMError
from ..settings.settings import PAINTED, Settings

PREFIX = "AsynDM"


def key(field: Any) -> str:
    """The infotext's name of a setting, as ``AsynDM mask timing``."""
    return f"{PREFIX} {field.metadata['label'].lower()}"


MASK = f"{PREFIX} mask"
"""The name of a mask by hand; the mask itself does not fit."""

_WRITTEN = tuple(f for f in fields(Settings) if not f.metadata.get("aside") and not f.metadata.get("picture"))
_REGION = next(f for f in _WRITTEN if f.name == "region")
KEYS = (PREFIX, *(key(f) for f in _WRITTEN), MASK)

CHOSEN = f"{PREFIX} chosen"
SLOWED = f"{PREFIX} slowed"


def write(settings: Settings, mask: str | None = None) -> dict[str, Any]:
    """The entries for ``settings``. There is always one: tags alone may have named the targets.

    ``mask``: the digest of a mask by hand.
    """
    values = {key(f): getattr(settings, f.name) for f in _WRITTEN if getattr(settings, f.name) != f.default}
    # Line breaks divide targets as commas do; an infotext is one line.
    values = {name: value.replace("\n", ", ") if isinstance(value, str) else value for name, value in values.items()}
    if mask is not None:
        values[MASK] = mask
    return values or {PREFIX: "on"}


class OfPictures(tuple):
    """What a run told of each picture of the job: a text or None per picture.

    An infotext calls it and has its own picture's; the API's ``info`` has all. It is not restored:
    the same request tells the same.
    """

    def __call__(self, p: Any, index: int, all_prompts: Any, use_main_prompt: bool = False, **_: Any) -> str | None:
        # While a batch is saved the host counts in that batch, later in the job.
        # reForge then has prompts of its own.
        of_batch = all_prompts is not p.all_prompts and len(all_prompts) == len(p.prompts) and not use_main_prompt
        first = p.iteration * p.batch_size if of_batch else 0
        return self[first + index] if first + index < len(self) else None


def erase(params: MutableMapping[str, Any]) -> None:
    """Take our entries out; the host shares ``params`` between the cells of an X/Y/Z plot."""
    erase_told(params)
    for name in KEYS:
        params.pop(name, None)


def erase_told(params: MutableMapping[str, Any]) -> None:
    """Take out what runs told of pictures that are not made after all.

    The settings stay: if it was a plot's first cell, the host writes its grid's infotext from them.
    """
    for name in (CHOSEN, SLOWED):
        params.pop(name, None)


def was_on(params: Mapping[str, Any]) -> bool:
    """Whether the infotext's picture was made with AsynDM on."""
    return any(name in params for name in KEYS)


def _reader(field: Any) -> Callable[[Mapping[str, Any]], Any]:
    def read(params: Mapping[str, Any]) -> Any:
        if field not in _WRITTEN or not was_on(params):
            return None  # the control stays as it is
        value = params.get(key(field), field.default)
        if isinstance(field.default, bool):
            return str(value) == "True"
        try:
            value = type(field.default)(value)
            Settings(**{field.name: value})
        except (ValueError, TypeError, AsynDMError):  # written by hand, or by another version
            return field.default
        return value

    return read


def lost(params: Mapping[str, Any]) -> str:
    """What is said, as HTML, of a painted mask that an infotext names but cannot bring back.

    It is empty where there is none.
    """
    if params.get(key(_REGION)) != PAINTED or MASK not in params:
        return ""
    return (
        f"The picture was made with a painted mask ({html.escape(str(params[MASK]))}). An infotext cannot restore "
        "it: paint it again, if it is not still on the canvas."
    )


READERS: dict[str, Callable[[Mapping[str, Any]], Any]] = {f.name: _reader(f) for f in fields(Settings)}
"""One function per setting: the same object in both tabs, so that "Send to" finds its partner."""
