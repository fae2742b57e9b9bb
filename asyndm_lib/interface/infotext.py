"""Settings → the picture's infotext, and back into the controls.

Written only when on, and only what is not the default, with the targets as the sign that it was on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import fields
from typing import Any

from ..settings import Settings

PREFIX = "AsynDM"


def key(field: Any) -> str:
    """The infotext's name of a setting, as ``AsynDM mask timing``."""
    return f"{PREFIX} {field.metadata['label'].lower()}"


KEYS = (PREFIX, *(key(f) for f in fields(Settings)))


def write(settings: Settings) -> dict[str, Any]:
    """The entries for ``settings``; never empty: a prompt's tags alone may have named the targets."""
    values = {key(f): getattr(settings, f.name) for f in fields(Settings) if getattr(settings, f.name) != f.default}
    # Line breaks divide targets as commas do; an infotext is one line.
    values = {name: value.replace("\n", ", ") if isinstance(value, str) else value for name, value in values.items()}
    return values or {PREFIX: "on"}


def erase(params: MutableMapping[str, Any]) -> None:
    """Take our entries out; the host shares ``params`` between the cells of an X/Y/Z plot."""
    for name in KEYS:
        params.pop(name, None)


def was_on(params: Mapping[str, Any]) -> bool:
    """Whether the infotext's picture was made with AsynDM on."""
    return any(name in params for name in KEYS)


def _reader(field: Any) -> Callable[[Mapping[str, Any]], Any]:
    def read(params: Mapping[str, Any]) -> Any:
        if not was_on(params):
            return None  # the control stays as it is
        value = params.get(key(field), field.default)
        if isinstance(field.default, bool):
            return str(value) == "True"
        try:
            return type(field.default)(value)
        except ValueError:
            return field.default

    return read


READERS: dict[str, Callable[[Mapping[str, Any]], Any]] = {f.name: _reader(f) for f in fields(Settings)}
"""One function per setting: the same object in both tabs, so that "Send to" finds its partner."""
