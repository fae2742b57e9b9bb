"""What the WebUI hands to the script, from its page or its API → settings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from PIL import Image

from ..errors import SettingsError
from ..pictures import painting
from ..settings.settings import PAINTED, Settings
from . import job

TITLE = "AsynDM"
"""The script's title, by which API requests name it, in upper or lower case."""

NAMES = ("enabled", *(f.name for f in fields(Settings)))
"""The order of the script's arguments, which saved API requests rely on: new ones go to the end."""


def of(p: Any, args: Sequence[Any]) -> Settings | None:
    """The settings of one job or one cell of an X/Y/Z plot, or None if switched off.

    ``args``: the script's arguments, in order, or one object that names settings; what is missing
    has its default, but for the region of a named mask. A page gives what is on its canvas in place
    of the mask's text. Named settings and axes switch AsynDM on unless they say otherwise. Raises
    :class:`errors.AsynDMError` that names the value that is wrong.
    """
    if args and isinstance(args[0], Mapping):
        values = _named(args[0])
    else:
        values = {"enabled": False, **dict(zip(NAMES, args, strict=False))}
        if "mask" in values:
            values["mask"] = _mask(values["mask"])
    if axes := job.of(p).axes:
        values |= {"enabled": True, **axes}
    return _settings(values) if _enabled(values) else None


def check(body: Any) -> None:
    """Raise :class:`errors.AsynDMError` if the settings of a picture request cannot be right.

    ``body``: the API's request, decoded.
    The host would pass over some of them in silence. Settings in a list are left to :func:`of`, but
    for what the host's answer, which repeats the request, cannot hold.
    """
    scripts = body.get("alwayson_scripts") if isinstance(body, Mapping) else None
    for title, entry in scripts.items() if isinstance(scripts, Mapping) else ():
        if title.lower() == TITLE.lower():
            _check_entry(entry)
            _check_repeatable(entry)


def has_half_characters(text: str) -> bool:
    """Whether ``text`` holds a lone surrogate, which cannot be sent."""
    return any("\ud800" <= char <= "\udfff" for char in text)


def _check_entry(entry: Any) -> None:
    args = entry.get("args", None if entry else []) if isinstance(entry, Mapping) else None
    if not isinstance(args, list):
        raise SettingsError(f'AsynDM takes its settings as {{"args": [{{"targets": "cat"}}]}}, not {entry!r:.80}')
    if args and isinstance(args[0], Mapping):
        if len(args) > 1:
            raise SettingsError(f"AsynDM takes one object of named settings, and nothing after it: {args[1]!r:.80}")
        values = _named(args[0])
        _enabled(values)
        settings = _settings(values)
        if settings.mask:
            painting.read(settings.mask)


def _check_repeatable(entry: Any) -> None:
    left = [entry]
    while left:
        value = left.pop()
        if isinstance(value, Mapping):
            left += [*value, *value.values()]
        elif isinstance(value, list):
            left += value
        elif isinstance(value, str) and has_half_characters(value):
            raise SettingsError(f"a text holds half a character: {value!r:.80}")
        elif isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise SettingsError(f"a whole number is longer than 64 bits: {value!r:.80}")
        elif isinstance(value, float) and not math.isfinite(value):
            raise SettingsError(f"a number is not finite: {value!r:.80}")


def _named(values: Mapping[str, Any]) -> dict[str, Any]:
    """What is meant by an object that names settings: on, and by a mask that it is painted."""
    return {"enabled": True, **({"region": PAINTED} if values.get("mask") else {}), **values}


def _mask(value: Any) -> Any:
    """The text of a mask that may be what a page's canvas holds: nothing, a picture of the strokes,
    or a picture with a mask on it.
    """
    if isinstance(value, Mapping):
        value = value.get("mask")
    if value is None:
        return ""
    return painting.as_text(value) if isinstance(value, Image.Image) else value


def _enabled(values: Mapping[str, Any]) -> bool:
    if not isinstance(values["enabled"], bool):
        raise SettingsError(f"enabled, the first argument, must be true or false, not {values['enabled']!r:.80}")
    return values["enabled"]


def _settings(values: Mapping[str, Any]) -> Settings:
    return Settings.from_mapping({name: value for name, value in values.items() if name != "enabled"})
