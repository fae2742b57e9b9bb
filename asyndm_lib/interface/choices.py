"""The words that a job chose by itself: kept in it, and written to its infotexts."""

from __future__ import annotations

from typing import Any

from ..masks.choice import Chosen
from . import infotext, job


def note(p: Any, chosen: Chosen) -> None:
    """Keep and write what a sampling call of ``p`` chose.

    A second pass that chose anew, for a prompt of its own, adds to what the first one chose.
    """
    first = p.iteration * p.batch_size
    words = dict(job.of(p).chosen)
    for number, new in enumerate(chosen, start=first):
        if new:
            words[number] = tuple(dict.fromkeys((*words.get(number, ()), *new)))
    if words:
        job.update(p, chosen=words)
        texts = [_listed(words.get(number, ())) for number in range(first + len(chosen))]
        p.extra_generation_params[infotext.CHOSEN] = infotext.OfPictures(text or None for text in texts)


def _listed(words: tuple[str, ...]) -> str:
    return ", ".join(words)
