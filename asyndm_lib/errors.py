"""Errors whose text is meant for the person who makes the picture."""

from __future__ import annotations

import sysconfig
import traceback
from importlib.util import find_spec
from pathlib import Path

_OURS = Path(__file__).parent
_STANDARD = tuple(Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib"))
_PACKAGES = Path(sysconfig.get_path("purelib"))


class AsynDMError(Exception):
    """The base class. ``str(error)`` is one line that says what is wrong and what to do."""


class SettingsError(AsynDMError):
    """A setting has an unknown name, a wrong type or a value out of range."""


class TargetError(AsynDMError):
    """The list of target words cannot be read, or a word is not in the prompt."""


class Unsupported(AsynDMError):
    """The host's present set-up (its sampler, model or the like) cannot run on a sigma map."""


class TooFewSteps(Unsupported):
    """The sampling call has no step in which regions could differ."""


class Unmatched(Unsupported):
    """Somebody calls the model in a way that leaves its pixels without their noise levels."""


class TakenApart(Unmatched):
    """Another extension gives the model pieces of the picture, or pictures of another size, and it
    cannot be told which pixels they hold.
    """

    def __init__(self) -> None:
        super().__init__(
            "another extension gives the model the picture in pieces that AsynDM cannot place; "
            "switch it or AsynDM off"
        )


class Fault(AsynDMError):
    """A fault in AsynDM itself."""


def fault(error: Exception) -> AsynDMError:
    """``error``, raised where AsynDM works, as one that a person can read."""
    if isinstance(error, AsynDMError):
        return error
    frames = traceback.extract_tb(error.__traceback__)
    place = next((frame for frame in reversed(frames) if _within(frame.filename, _OURS)), None)
    where = f", {Path(place.filename).relative_to(_OURS)}:{place.lineno}" if place else ""
    what = " ".join(f"{type(error).__name__}: {error!s:.200}".split())
    return Fault(f"a fault in AsynDM itself ({what}{where}); report it, or switch AsynDM off")


def is_ours(error: Exception) -> bool:
    """Whether ``error`` was raised by AsynDM, or by PyTorch where AsynDM called it.

    What the host or another extension raises, also where AsynDM called them, is theirs.
    """
    if isinstance(error, AsynDMError):
        return True
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    while files and not _within(files[-1], _OURS) and _is_tool(files[-1]):
        files.pop()
    return bool(files) and _within(files[-1], _OURS)


def _is_tool(file: str) -> bool:
    if _within(file, _PACKAGES):
        return _within_torch(file)
    return file.startswith("<") or _within_torch(file) or any(_within(file, folder) for folder in _STANDARD)


def _within_torch(file: str) -> bool:
    torch = find_spec("torch")  # not imported here: an error's text needs no torch
    return torch is not None and torch.origin is not None and _within(file, Path(torch.origin).parent)


def _within(file: str, folder: Path) -> bool:
    return folder in Path(file).parents
