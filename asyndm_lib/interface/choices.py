"""What a job chose by itself: kept on it, written to its infotexts, and told."""

from __future__ import annotations

from typing import Any

from ..masks.choice import Chosen
from . import infotext, messages


def note(p: Any, chosen: Chosen) -> None:
    """After a sampling call of ``p``. A second pass that chose anew (its prompt is another) adds to the first's."""
    first = p.iteration * p.batch_size
    for number, words in enumerate(chosen, start=first):
        if words:
            p.asyndm_chosen[number] = tuple(dict.fromkeys((*p.asyndm_chosen.get(number, ()), *words)))
            messages.tell(p, f"chose: {_listed(p.asyndm_chosen[number])}")
    if p.asyndm_chosen:
        texts = [_listed(p.asyndm_chosen.get(number, ())) for number in range(first + len(chosen))]
        p.extra_generation_params[infotext.CHOSEN] = infotext.ChosenWords(text or None for text in texts)


def _listed(words: tuple[str, ...]) -> str:
    return ", ".join(words)
