"""What the WebUI hands to the script, from its page or its API → settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from ..errors import SettingsError
from ..settings import Settings

NAMES = ("enabled", *(f.name for f in fields(Settings)))
"""The order of the script's arguments, which saved API requests rely on: new ones go to the end."""


def read(args: Sequence[Any]) -> Settings | None:
    """The settings, or None if switched off. Missing arguments keep their defaults.

    Raises :class:`errors.AsynDMError` that names the value that is wrong.
    """
    enabled, *values = args or (False,)
    if not isinstance(enabled, bool):
        raise SettingsError(f"the first argument (enabled) must be true or false, not {enabled!r:.80}")
    if not enabled:
        return None
    return Settings.from_mapping(dict(zip(NAMES[1:], values, strict=False)))
