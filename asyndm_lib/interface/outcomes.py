"""What a job did: written to its infotexts, and said in one line under its pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ..errors import fault
from ..run.outcome import Outcome, Slowed
from ..settings.settings import INTERSECTION, UNION
from . import infotext, job, messages
from .job import Pass

FEW = 4
"""From how many steps on in which regions can differ their number is no matter."""

MOST_WORDS = 8
"""The most words that the line names."""

MOST_LETTERS = 40
"""The most letters of one of them."""

BY_HAND = "the region of the mask"

WITHOUT = "nothing (made without AsynDM)"
OF_A_SCRIPT = " Other pictures of the script may differ: the infotext of each has its own."
OFF_AT_FIRST = "was off in the first picture of this plot. The infotext of each picture says what lagged in it."


def note(p: Any, outcome: Outcome | None, second: bool) -> None:
    """Keep and write what a sampling call of ``p`` did.

    ``outcome``: None where it had too few steps and was left to the host. ``second``: it is hires
    fix's second pass.
    """
    first = p.iteration * p.batch_size
    size = len(p.prompts) if outcome is None else len(outcome.pictures)
    _write(p, (*job.of(p).passes, Pass(range(first, first + size), second, outcome)))


def withdraw(p: Any, second: bool) -> None:
    """Forget what a sampling call of the present batch did: the host makes the picture anew."""
    first = p.iteration * p.batch_size
    passes = tuple(one for one in job.of(p).passes if (one.pictures.start, one.second) != (first, second))
    if passes != job.of(p).passes:
        _write(p, passes)


def _write(p: Any, passes: tuple[Pass, ...]) -> None:
    job.update(p, passes=passes)
    size = max((one.pictures.stop for one in passes), default=0)
    texts = [_written([one for one in passes if number in one.pictures], number) for number in range(size)]
    if any(texts):
        p.extra_generation_params[infotext.SLOWED] = infotext.OfPictures(texts)
    else:
        p.extra_generation_params.pop(infotext.SLOWED, None)


def say(p: Any, processed: Any) -> None:
    """Say in one line what the job ``p``, which is done, did to its pictures.

    ``processed``: the host's ``Processed``, whose comments stand under the pictures.
    """
    try:
        passes = [one for one in job.of(p).passes if one.outcome is not None]
        if passes and processed.infotexts:  # ADetailer ends a copy of a job, with no pictures, before that is done
            script = job.script_selected(p)
            text = line(passes, getattr(p, "enable_hr", False)) + (OF_A_SCRIPT if script else "")
            messages.conclude(p, processed, text, once=script)
    except Exception as error:  # the pictures are made
        messages.report(p, f"{fault(error)}. Only what lagged is not told")


def line(passes: Sequence[Pass], hires: bool = False) -> str:
    """What ``passes`` of one job did, for a person, as of the subject AsynDM.

    ``hires``: the job has two passes; those that are missing ran without AsynDM.
    """
    first, second = ([one.outcome for one in passes if one.second is which and one.outcome] for which in (False, True))
    if not (first and second):
        alone = f", in the {'second' if second else 'first'} pass alone" if hires or second else ""
        return f"{_said(first or second)}{alone}."
    said, of_second = _said(first), _said(second)
    return f"{said}, in both passes." if said == of_second else f"{said}; in the second pass it {of_second}."


def _said(outcomes: Sequence[Outcome]) -> str:
    pictures = [picture for outcome in outcomes for picture in outcome.pictures]
    slowed = [picture for picture in pictures if picture.share > 0 and picture.lag > 0]
    chose = any(words is not None for outcome in outcomes for words in outcome.chosen)
    seen = _distinct(slowed, 0)
    nowhere = [word for word in _distinct(pictures, 1) if word not in seen]
    joined = outcomes[0].joined
    if not slowed:
        stopped = all(outcome.stopped for outcome in outcomes)
        return _why_nothing(pictures, nowhere, joined == INTERSECTION, stopped)
    steps, differing = max((outcome.steps, outcome.differing) for outcome in outcomes)
    regions = any(map(_is_region, slowed))
    what = _what(seen, joined) if seen else BY_HAND if regions else "the whole picture"
    said = f"{'chose and slowed' if chose else 'slowed'} {what}"
    said += f" by up to {max(picture.lag for picture in slowed):.1f} of {steps} steps"
    if regions:
        share = _percent(picture.share for picture in slowed)
        said += f", in {share} of {'the' if len(slowed) == 1 else 'each'} picture"
    if regions and differing < FEW:
        said += f" (regions could differ in {differing} of the steps only)"
    if nowhere:
        said += f", and found no place for {_listed(nowhere)}"
    if len(slowed) < len(pictures):
        said += f"; {len(pictures) - len(slowed)} of {len(pictures)} pictures had nothing to slow"
    return said


def _what(words: Sequence[str], joined: str | None) -> str:
    """What lagged where some of the ``words`` did."""
    if joined == INTERSECTION:
        return f"{_listed(words)} within {BY_HAND}"
    return _listed(words, (BY_HAND,) if joined == UNION else ())


def _is_region(picture: Slowed) -> bool:
    """Whether words, or a mask of a person's own, say what lags, and not all does."""
    return picture.words is not None or picture.share < 1


def _why_nothing(pictures: Sequence[Slowed], nowhere: Sequence[str], within: bool, stopped: bool) -> str:
    """``within``: only what belonged to a mask by hand and to a word could lag. ``stopped``: no
    picture came to its end.
    """
    if any(picture.share > 0 for picture in pictures):
        return "slowed nothing, as the concavity is 0"
    reached = _distinct(pictures, 0)
    why = "the picture was stopped before" if stopped else "no target was seen"
    if within and reached:
        why = f"no place of {_listed(reached)} is within {BY_HAND}"
    elif nowhere:
        why = f"no place reached the mask threshold for {_listed(nowhere)}"
    if any(picture.lag > 0 for picture in pictures):
        first = BY_HAND if within else "all alike"
        return f"slowed {first} in the first step and nothing afterwards, as {why}"
    return f"slowed nothing, as {why}"


def _written(passes: Sequence[Pass], number: int) -> str | None:
    """What the infotext of a picture says of its ``passes``; None if there are none."""
    texts = []
    for one in passes:
        at = one.pictures.index(number)
        text = WITHOUT if one.outcome is None else _figures(one.outcome, one.outcome.pictures[at])
        texts.append(f"{text} in the second pass" if one.second else text)
    return "; ".join(texts) or None


def _figures(outcome: Outcome, picture: Slowed) -> str:
    if picture.lag <= 0:
        return "nothing"
    if picture.share <= 0:
        return "nothing after the first step"
    share = f"{_percent([picture.share])} of the picture" if _is_region(picture) else "the whole picture"
    return f"{share} by up to {picture.lag:.1f} of {outcome.steps} steps"


def _distinct(pictures: Sequence[Slowed], which: int) -> list[str]:
    """The words of ``pictures`` that reached their threshold (0), or did nowhere (1)."""
    return list(dict.fromkeys(word for picture in pictures if picture.words for word in picture.words[which]))


def _listed(words: Sequence[str], others: Sequence[str] = ()) -> str:
    """The ``words`` in quotes, and the ``others`` as they are."""
    names = [f'"{word:.{MOST_LETTERS}}"' for word in words[:MOST_WORDS]]
    if len(words) > MOST_WORDS:
        names.append(f"{len(words) - MOST_WORDS} more")
    names += others
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _percent(shares: Iterable[float]) -> str:
    """``23 %``, or ``18 to 25 %`` of several."""
    whole = sorted({max(round(100 * share), 1) for share in shares})
    return f"{whole[0]} %" if len(whole) == 1 else f"{whole[0]} to {whole[-1]} %"
