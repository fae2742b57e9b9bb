"""Axes for the host's X/Y/Z plot: "on" and every setting, which hold for their cell alone."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import modules.scripts
from fastapi import HTTPException

from ..errors import AsynDMError, SettingsError
from ..settings.settings import Settings
from . import job

PREFIX = "[AsynDM] "
FIRST = ("concavity", "curve", "mask_timing", "threshold", "targets", "whole_picture", "second_pass")
"""The axes after "Enabled"; the settings that are not named here follow in the model's order."""

MAX_VALUES = 1000
"""The most values of one range."""

_NO_VALUES = (
    "no values are given. In a request, text is read in place of a list where the plot's last argument, \"Use text"
    ' inputs instead of dropdowns", is true'
)
_YES_OR_NO = {"true": True, "on": True, "yes": True, "1": True, "false": False, "off": False, "no": False, "0": False}
_NUMBER = r"\s*([+-]?\d*\.?\d+)\s*"
_RANGE = re.compile(rf"{_NUMBER}-{_NUMBER}(?:\({_NUMBER}\)\s*|\[\s*(\d+)\s*\]\s*)?")


def add() -> None:
    """Give the host's script our axes, if it has not got them yet."""
    for data in modules.scripts.scripts_data:
        options = getattr(data.module, "axis_options", None)
        if isinstance(options, list) and hasattr(data.module, "AxisOption"):
            there = {option.label for option in options}
            options += [axis for axis in _axes(data.module.AxisOption) if axis.label not in there]


class WrongValue(HTTPException):
    """A value of an axis is wrong: HTTP 422 in the API, and its text in the page."""

    def __init__(self, label: str, reason: object):
        super().__init__(422, f"{label}: {reason}")

    def __str__(self) -> str:
        return str(self.detail)


def _axes(option: Callable[..., Any]) -> list[Any]:
    by_name = {f.name: f for f in fields(Settings) if not f.metadata.get("aside") and not f.metadata.get("picture")}
    names = [*FIRST, *(name for name in by_name if name not in FIRST)]
    enabled = _axis(option, "Enabled", "enabled", _yes_or_no, ("True", "False"))
    return [enabled, *(_axis_of(option, by_name[name]) for name in names)]


def _axis_of(option: Callable[..., Any], field: Any) -> Any:
    choices = field.metadata.get("choices")
    if isinstance(field.default, bool):
        read, choices = _yes_or_no, ("True", "False")
    elif isinstance(field.default, float):
        read = _number
    else:
        read = str.strip if choices else str

    def value(text: str) -> Any:
        converted = read(text)
        Settings(**{field.name: converted})
        return converted

    return _axis(option, field.metadata["label"], field.name, value, choices, ranges=isinstance(field.default, float))


def _axis(
    option: Callable[..., Any],
    label: str,
    name: str,
    read: Callable[[str], Any],
    choices: tuple[str, ...] | None,
    *,
    ranges: bool = False,
) -> Any:
    """An axis for the setting ``name``. Whatever is wrong in its values is said before the plot's
    first picture, as :class:`WrongValue`.

    ``read``: text → value; raises :class:`errors.AsynDMError`.
    """
    label = f"{PREFIX}{label}"

    def refusing(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def refused(given: Any) -> Any:
            try:
                return convert(given)
            except AsynDMError as error:
                raise WrongValue(label, error) from None

        return refused

    def some(_: Any, values: list[Any]) -> None:
        if not values:
            raise WrongValue(label, _NO_VALUES)

    return option(
        label,
        refusing(lambda value: read(str(value))),  # what a request gives as a dropdown's values may be no text
        _apply(name),
        confirm=some,
        choices=choices and (lambda: list(choices)),
        prepare=refusing(ranged if ranges else entries),
    )


def _apply(name: str) -> Callable[[Any, Any, Any], None]:
    def apply(p: Any, value: Any, _: Any) -> None:
        job.update(p, axes={**job.of(p).axes, name: value})

    return apply


def entries(text: Any) -> list[str]:
    """The values of an axis, divided by commas; quotes hold together what has commas.

    Raises :class:`errors.SettingsError` if they cannot be read.
    """
    if not isinstance(text, str):
        raise SettingsError(f"the values must be text, divided by commas, not {text!r:.80}")
    try:
        return [entry.strip() for row in csv.reader(io.StringIO(text), skipinitialspace=True) for entry in row]
    except csv.Error as error:
        raise SettingsError(f"the values cannot be read ({error})") from None


def ranged(text: Any) -> list[str]:
    """The numbers of an axis.

    A range is written as the host's own axes take it, ``0.3-0.9 (+0.2)`` or ``0-1 [5]``. It never
    goes past its end, as theirs do.
    """
    return [value for entry in entries(text) if entry for value in _expanded(entry)]


def _expanded(entry: str) -> list[str]:
    found = _RANGE.fullmatch(entry)
    if not found:
        return [entry]
    start, end = float(found[1]), float(found[2])
    if found[4]:
        count = int(found[4])
        step = (end - start) / (count - 1) if count > 1 else 0.0
    else:
        step = float(found[3] or 1)
        count = math.floor((end - start) / step + 1e-9) + 1 if step else 0
    if not 0 < count <= MAX_VALUES:
        raise SettingsError(f"the range {entry!r:.80} has no values, or more than {MAX_VALUES}")
    return [f"{start + n * step:.10g}" for n in range(count)]


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text  # which the settings refuse by name


def _yes_or_no(text: str) -> bool:
    try:
        return _YES_OR_NO[text.strip().lower()]
    except KeyError:
        raise SettingsError(f"{text!r:.80} is neither True nor False") from None
