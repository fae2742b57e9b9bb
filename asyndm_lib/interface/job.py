"""The state of one job of the WebUI: ``p.asyndm``, the only attribute of ours on its ``p``.

``p`` is the host's ``StableDiffusionProcessing``. Scripts copy it shallowly: the X/Y/Z plot does so
for every cell. A job therefore never changes; what is new makes another one, for this ``p`` alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from PIL import Image

from ..pictures.film import Film
from ..run.outcome import Outcome
from ..settings.settings import Settings


class Filmed(NamedTuple):
    """A sampling call that a film observes. ``second``: it is hires fix's second pass."""

    film: Film
    settings: Settings
    second: bool


class Pass(NamedTuple):
    """A sampling call that is over.

    ``pictures``: their numbers in the job. ``second``: it is hires fix's second pass. ``outcome``:
    what it did; None where it was left to the host, as it had too few steps.
    """

    pictures: range
    second: bool
    outcome: Outcome | None


@dataclass(frozen=True)
class Sheet:
    """The sheet of one picture.

    ``number`` counts the picture in the whole job; ``iteration`` is its batch and ``index`` its
    place in that. ``own`` holds the picture's entries in the host's lists, by the lists' names.
    """

    image: Image.Image
    number: int
    iteration: int
    index: int
    own: dict[str, Any]


@dataclass(frozen=True)
class Job:
    """What lasts from one hook to the next.

    ``axes``: what an X/Y/Z plot sets for its cell, by the names of the script's arguments.
    ``chosen``: the words that became targets by themselves, by the number of the picture in the
    job. ``passes``: the sampling calls so far. ``sheets``: those of the pictures made so far.
    ``pictures``: how many were made so far. ``asked``: whether the host has asked before it sampled
    the present batch, and AsynDM was on. ``first``: whether the first pass of the present batch is
    made with AsynDM. ``films``: the sampling calls of the present batch that are observed.
    """

    axes: Mapping[str, Any] = field(default_factory=dict)
    chosen: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    passes: tuple[Pass, ...] = ()
    sheets: tuple[Sheet, ...] = ()
    pictures: int = 0
    asked: bool = False
    first: bool = False
    films: tuple[Filmed, ...] = ()


def of(p: Any) -> Job:
    """The job of ``p``; an empty one where none was begun."""
    return getattr(p, "asyndm", None) or Job()


def update(p: Any, **changes: Any) -> None:
    """Give ``p`` its job with ``changes`` to some fields; none while all are as at first."""
    here = replace(of(p), **changes)
    if here == Job():
        vars(p).pop("asyndm", None)
    else:
        p.asyndm = here


def begin_batch(p: Any) -> None:
    """Forget the batch before; at the first batch of ``p`` all but the axes."""
    if p.iteration == 0:
        forget(p)
    else:
        update(p, asked=False, films=())


def forget(p: Any) -> None:
    """Begin a job anew. The axes stay: they are set before it, and hold if ``p`` is run again.

    Without them nothing stays on ``p``, which another extension may keep for good. A job whose
    sampling failed is begun anew as well; of one that failed later, in the VAE, no hook tells.
    """
    axes = of(p).axes
    vars(p).pop("asyndm", None)
    update(p, axes=axes)


def script_selected(p: Any) -> bool:
    """Whether a script of the host collects the pictures of several jobs.

    Some scripts take every picture for a result.
    """
    return bool(p.script_args) and p.script_args[0] not in (None, 0)
