"""A prompt of an evaluation: its words, the words that lag, and what a picture has to show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import AsynDMError
from .counter import Found, tally

PLACES = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}
"""Where the first thing lies, seen from the second, as a direction in the picture."""

CLEAR = 16.0
"""The least distance in pixels between two centres for which a place holds."""


class NoPicture(AsynDMError):
    """There is no picture of a prompt by a method; there may be of others."""


@dataclass(frozen=True)
class Prompt:
    """A prompt, and what its picture has to show.

    ``targets``: its target list. ``things``: name and number of everything that a picture should
    show; empty where nobody can tell. ``place``: where the first thing lies, seen from the second,
    as a key of :data:`PLACES`.
    """

    text: str
    targets: str
    things: tuple[tuple[str, int], ...] = ()
    place: str | None = None

    def shown(self, found: Sequence[Found]) -> Shown:
        """How much of the prompt a picture with these things shows."""
        wanted, there = Counter(dict(self.things)), tally(found)
        missing, extra = (wanted - there).total(), (there - wanted).total()
        exact = not missing and not extra and self._placed(found)
        return Shown(exact, wanted.total() - missing, extra)

    def _placed(self, found: Sequence[Found]) -> bool:
        if self.place is None:
            return True
        first, second = (next(thing for thing in found if thing.name == name) for name, _ in self.things)
        right, down = PLACES[self.place]
        return (first.x - second.x) * right + (first.y - second.y) * down >= CLEAR


@dataclass(frozen=True)
class Shown:
    """What a picture shows of its prompt.

    ``exact``: all that the prompt names, in its place, and nothing else. ``right``: how many of the
    wanted things. ``extra``: how many other things.
    """

    exact: bool
    right: int
    extra: int
