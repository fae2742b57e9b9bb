"""Whether what a program is to write can be written, asked before the work."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from ..errors import AsynDMError


def check_folder(path: Path, option: str) -> None:
    """Make the folder that ``option`` names.

    Raises :class:`AsynDMError` if it cannot be written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".asyndm-writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise _refused(path, option, error) from error


def check_file(path: Path, option: str) -> None:
    """Make the folder of the file that ``option`` names, and see that the file can be written.

    What it holds stays. Raises :class:`AsynDMError` if it cannot.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = not path.exists()
        with path.open("ab"):
            pass
        if new:
            path.unlink()
    except OSError as error:
        raise _refused(path, option, error) from error


def check_picture(path: Path, option: str) -> None:
    """:func:`check_file`, for a picture, whose ending must say a format that can be written."""
    kind = Image.registered_extensions().get(path.suffix.lower())
    try:
        Image.new("RGB", (8, 8)).save(io.BytesIO(), kind)
    except (OSError, ValueError, KeyError, AttributeError) as error:
        said = f"{path.suffix} is no picture format that can be written" if path.suffix else "it has no ending"
        raise AsynDMError(f"{option} {path}: {said}; use .png") from error
    check_file(path, option)


def _refused(path: Path, option: str, error: OSError) -> AsynDMError:
    return AsynDMError(f"{option}: cannot write {error.filename or path}: {error.strerror or error}")
