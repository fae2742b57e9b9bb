"""Messages for the person: under the picture, on the console, and in the API's info."""

from __future__ import annotations

import sys
from typing import Any

from ..errors import AsynDMError


def report(p: Any, text: str) -> None:
    """Say ``text`` once for this job (``p``: the host's ``StableDiffusionProcessing``)."""
    if _say(p, _line(text)):
        ours = _ForInfo(comment for comment in p.comments if comment.startswith("AsynDM: "))
        p.extra_generation_params["AsynDM messages"] = ours


def refuse(p: Any, reason: AsynDMError, second: bool) -> None:
    """Say once for this job why a sampling call of it runs without AsynDM.

    ``second``: it is hires fix's second pass. What was said of the picture holds for it too.
    """
    of_picture = f"{reason}. The picture was made without AsynDM"
    if not second:
        report(p, of_picture)
    elif _line(of_picture) not in p.comments:
        report(p, f"{reason}. The second pass was made without AsynDM")


def tell(p: Any, text: str) -> None:
    """Say ``AsynDM text``, which is no matter of concern, unless such a line stands there.

    The API's info does not repeat it.
    """
    if not _told(p):
        _say(p, f"AsynDM {text}")


def conclude(p: Any, processed: Any, text: str, once: bool) -> None:
    """Say ``AsynDM text`` of a job that is done, under its pictures and on the console.

    ``processed``: the host's ``Processed``, which has the comments of ``p`` so far. ``once``: under
    the pictures only if no such line stands there, since the jobs of a script share their comments.
    """
    line = _printable(f"AsynDM {text}")
    if once and _told(p):
        _print(line)
    elif _say(p, f"AsynDM {text}"):
        processed.comments += f"{line}\n"


def _say(p: Any, text: str) -> bool:
    """Say ``text`` if it is new; whether it was."""
    line = _printable(text)
    if line in p.comments:
        return False
    p.comment(line)
    _print(line)
    return True


def _told(p: Any) -> bool:
    return any(comment.startswith("AsynDM ") for comment in p.comments)


def _print(line: str) -> None:
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"  # a log file's on Windows is not UTF-8
    print("\n" + line.encode(encoding, "backslashreplace").decode(encoding))


def _line(text: str) -> str:
    """``text`` as a message of ours."""
    return _printable(f"AsynDM: {text[:1].upper()}{text[1:]}.")


def _printable(text: str) -> str:
    """``text``, which may repeat what was typed, with control and broken characters as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class _ForInfo(tuple):
    """Lines for the API's ``info``, where comments are not shown.

    An infotext calls them, and leaves None out.
    """

    def __call__(self, **_: Any) -> None:
        return None
