"""Messages for the person: under the picture, on the console, and in the API's info."""

from __future__ import annotations

import sys
from typing import Any


def report(p: Any, text: str) -> None:
    """Say ``text`` once for this job (``p``: the host's ``StableDiffusionProcessing``)."""
    line = _printable(f"AsynDM: {text[:1].upper()}{text[1:]}.")
    if line not in p.comments:
        p.comment(line)
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"  # a log file's on Windows is not UTF-8
        print("\n" + line.encode(encoding, "backslashreplace").decode(encoding))


def _printable(text: str) -> str:
    """Control characters and broken ones, which a message repeats from what was typed, as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def into_info(p: Any, processed: Any) -> None:
    """Name the job's messages in the API's ``info``, where its comments are not shown."""
    lines = [line for line in p.comments if line.startswith("AsynDM: ")]
    if lines:
        # A new dictionary: the host shares the old one between the cells of an X/Y/Z plot.
        processed.extra_generation_params = {**processed.extra_generation_params, "AsynDM messages": lines}
