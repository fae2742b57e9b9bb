"""Axes for the host's X/Y/Z plot: "on" and every setting, which hold for their cell alone."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import modules.scripts

from ..errors import AsynDMError, SettingsError
from ..settings.settings import Settings
from . import job

PREFIX = "[AsynDM] "
FIRST = ("concavity", "curve", "mask_timing", "threshold", "targets", "whole_picture", "second_pass")
"""The axes after "Enabled"; the settings that are not named here follow in the model's order."""

MAX_VALUES = 1000
"""The most values of one range."""

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


def _axes(option: Callable[..., Any]) -> list[Any]:
    by_name = {f.name: f for f in fields(Settings) if not f.metadata.get("aside")}
    names = [*FIRST, *(name for name in by_name if name not in FIRST)]
    axes = [option(f"{PREFIX}Enabled", _yes_or_no, _apply("enabled"), choices=lambda: ["True", "False"])]
    return axes + [_axis(option, by_name[name]) for name in names]


def _axis(option: Callable[..., Any], field: Any) -> Any:
    label, apply = f"{PREFIX}{field.metadata['label']}", _apply(field.name)
    if isinstance(field.default, bool):
        return option(label, _yes_or_no, apply, choices=lambda: ["True", "False"])
    if isinstance(field.default, float):
        return option(label, _value(field, _number), apply, prepare=values)
    if "choices" in field.metadata:
        choices = field.metadata["choices"]
        return option(label, _value(field, str.strip), apply, choices=lambda: list(choices))
    return option(label, _value(field, str), apply)


def _apply(name: str) -> Callable[[Any, Any, Any], None]:
    def apply(p: Any, value: Any, _: Any) -> None:
        job.update(p, axes={**job.of(p).axes, name: value})

    return apply


def values(text: str) -> list[str]:
    """The numbers of an axis, divided by commas.

    A range is written as the host's own axes take it, ``0.3-0.9 (+0.2)`` or ``0-1 [5]``. It never
    goes past its end, as theirs do.
    """
    entries = [entry.strip() for row in csv.reader([text], skipinitialspace=True) for entry in row]
    return [value for entry in entries if entry for value in _expanded(entry)]


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


def _value(field: Any, convert: Callable[[str], Any]) -> Callable[[str], Any]:
    """Text → a value of the setting, checked before the plot's first picture."""

    def read(text: str) -> Any:
        value = convert(text)
        try:
            Settings(**{field.name: value})
        except AsynDMError as error:
            raise SettingsError(f"{PREFIX}{error}") from None
        return value

    return read


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text  # which the settings refuse by name


def _yes_or_no(text: str) -> bool:
    try:
        return _YES_OR_NO[text.strip().lower()]
    except KeyError:
        raise SettingsError(f"{PREFIX}{text!r:.80} is neither True nor False") from None
