"""Prompts in the manner of GenEval (Ghosh et al. 2023, arXiv 2310.11513), and whether a picture
shows what they say.

Words, mixture and rules are our own (docs/EVALUATION.md). The things are those of COCO (Lin et al.
2014), which detectors know by name.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TypeVar

import numpy as np
from PIL import Image

from .detectors import Detection
from .prompts import PLACES, Prompt

NAMES = (
    *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light"),
    *("fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow"),
    *("elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee"),
    *("skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard"),
    *("tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple"),
    *("sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch"),
    *("potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard"),
    *("cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase"),
    *("scissors", "teddy bear", "hair drier", "toothbrush"),
)
"""COCO's names of things, in its order."""

WORDS = {
    "skis": "pair of skis",
    "scissors": "pair of scissors",
    "mouse": "computer mouse",
    "remote": "remote control",
    "tv": "television",
    "broccoli": "head of broccoli",
}
"""What prompts say for a thing where it is not its name."""

PLURALS = {
    "skis": "pairs of skis",
    "scissors": "pairs of scissors",
    "mouse": "computer mice",
    "broccoli": "heads of broccoli",
    "person": "people",
    "knife": "knives",
    "sheep": "sheep",
}
"""The plurals that no rule gives."""

NUMBERS = {2: "two", 3: "three", 4: "four"}

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")

COLOURED = tuple(name for name in NAMES if name not in ("person", "orange", "broccoli", "carrot", "banana", "zebra"))
"""The things that may be asked for in a colour."""

SHARES = {
    "one object": 80,
    "two objects": 99,
    "counting": 80,
    "colours": 94,
    "position": 100,
    "colour attribution": 100,
}
"""How many prompts of each kind there are in :data:`USUAL`."""

USUAL = sum(SHARES.values())
"""How many prompts there are by default: 553, as GenEval has."""

APART = 0.1
"""How far one thing's centre must lie on the asked side of the other's, as a part of the picture's
width or height."""

CORE = 0.5
"""The part of a box, in width and height, whose pixels tell a thing's colour."""

_GREY, _DARK, _LIGHT = 38, 51, 166
"""Below this saturation a pixel has no hue; below this value it is black; above this value, without
a hue, it is white. All of 255."""

_HUES = {"red": 15, "orange": 42, "yellow": 70, "green": 165, "blue": 260, "purple": 300, "pink": 345}
"""The hue in degrees at which each colour ends. Red begins where pink ends."""


Choice = TypeVar("Choice")


@dataclass(frozen=True)
class Scene(Prompt):
    """A prompt whose picture a detector can judge.

    ``things`` are COCO's names with the number asked for. ``kind``: one of :data:`SHARES`.
    ``colours``: that of each thing; empty where none is asked for.
    """

    kind: str = ""
    colours: tuple[str, ...] = ()


def prompts(count: int = USUAL, seed: int = 0) -> list[Scene]:
    """``count`` prompts, always the same for a ``seed``.

    The kinds are mixed evenly: any first part of the list has nearly the same shares.
    """
    made = {kind: _Maker(kind, seed) for kind in SHARES}
    scenes = []
    for number in range(1, count + 1):
        # Whichever kind is farthest behind its share.
        kind = max(SHARES, key=lambda kind: number * SHARES[kind] / USUAL - made[kind].count)
        scenes.append(made[kind]())
    return scenes


class _Maker:
    """Makes different prompts of one kind, until there are no more and they begin anew."""

    def __init__(self, kind: str, seed: int):
        self._rng, self._kind = random.Random(f"{kind} {seed}"), kind
        self._names: list[str] = []
        self._made: set[Scene] = set()
        self.count = 0

    def __call__(self) -> Scene:
        self.count += 1
        for _ in range(100):
            scene = _MAKERS[self._kind](self)
            if scene not in self._made:
                break
        self._made.add(scene)
        return scene

    def choose(self, among: Sequence[Choice], count: int = 1) -> list[Choice]:
        """``count`` different ones."""
        return self._rng.sample(among, count)

    def pair(self, among: Sequence[str]) -> list[str]:
        """Two things that share no word: a hot dog is no dog."""
        while True:
            pair = self.choose(among, 2)
            if not set.intersection(*(set(words(name).split()) for name in pair)):
                return pair

    def next_name(self) -> str:
        """Every name once, in any order, and so on."""
        if not self._names:
            self._names = self.choose(NAMES, len(NAMES))
        return self._names.pop()


def _one(maker: _Maker) -> Scene:
    return _scene("one object", [(maker.next_name(), 1)])


def _two(maker: _Maker) -> Scene:
    return _scene("two objects", [(name, 1) for name in maker.pair(NAMES)])


def _counting(maker: _Maker) -> Scene:
    ((name, count),) = maker.choose(list(product(NAMES, NUMBERS)))
    return _scene("counting", [(name, count)])


def _colours(maker: _Maker) -> Scene:
    return _scene("colours", [(maker.choose(COLOURED)[0], 1)], maker.choose(COLOURS))


def _position(maker: _Maker) -> Scene:
    return _scene("position", [(name, 1) for name in maker.pair(NAMES)], place=maker.choose(list(PLACES))[0])


def _attribution(maker: _Maker) -> Scene:
    return _scene("colour attribution", [(name, 1) for name in maker.pair(COLOURED)], maker.choose(COLOURS, 2))


_MAKERS: dict[str, Callable[[_Maker], Scene]] = {
    "one object": _one,
    "two objects": _two,
    "counting": _counting,
    "colours": _colours,
    "position": _position,
    "colour attribution": _attribution,
}


def _scene(
    kind: str, things: Sequence[tuple[str, int]], colours: Sequence[str] = (), place: str | None = None
) -> Scene:
    adjectives = colours or [""] * len(things)
    phrases = [phrase(name, count, colour) for (name, count), colour in zip(things, adjectives, strict=True)]
    text = f"a photo of {f' {place} '.join(phrases) if place else ' and '.join(phrases)}"
    targets = ", ".join(words(name, count).split(" of ")[-1] for name, count in things)
    return Scene(text, targets, tuple(things), place, kind, tuple(colours))


def words(name: str, count: int = 1) -> str:
    """What a prompt says for ``count`` of a thing, without the number: "cat", "cats"."""
    if count == 1:
        return WORDS.get(name, name)
    word = WORDS.get(name, name)
    return PLURALS.get(name, f"{word}es" if word.endswith(("s", "x", "ch", "sh")) else f"{word}s")


def phrase(name: str, count: int = 1, colour: str = "") -> str:
    """The words for ``count`` of a thing: "a cat", "an orange umbrella", "two cats"."""
    text = f"{colour} {words(name, count)}".strip()
    if count > 1:
        return f"{NUMBERS[count]} {text}"
    return f"{'an' if text[0] in 'aeiou' else 'a'} {text}"


def shows(scene: Scene, found: Sequence[Detection], picture: Image.Image) -> bool:
    """Whether ``picture``, in which a detector found these things, shows the scene.

    Every thing is there: as often as asked for where things are counted, else at least once; in its
    colour, where one is asked for; and with a place the surest of the first lies clearly on its
    side of the surest of the second. What else is there does not matter.
    """
    own = [[one for one in found if one.name == name] for name, _ in scene.things]
    if scene.kind == "counting":
        return all(len(there) == count for there, (_, count) in zip(own, scene.things, strict=True))
    if scene.colours:
        pairs = zip(own, scene.colours, strict=True)
        return all(any(colour_of(picture, one.box) == colour for one in there) for there, colour in pairs)
    return all(own) and (scene.place is None or _placed(scene.place, own, picture))


def _placed(place: str, own: Sequence[Sequence[Detection]], picture: Image.Image) -> bool:
    (x, y), (other_x, other_y) = (max(there, key=lambda one: one.confidence).centre for there in own)
    right, down = PLACES[place]
    return (x - other_x) / picture.width * right + (y - other_y) / picture.height * down >= APART


def colour_of(picture: Image.Image, box: tuple[float, float, float, float]) -> str | None:
    """The one of :data:`COLOURS` that most pixels in the core of ``box`` have; None if most are
    grey, or if there are none.
    """
    left, top, right, bottom = box
    x, y = (right - left) * (1 - CORE) / 2, (bottom - top) * (1 - CORE) / 2
    core = picture.crop((round(left + x), round(top + y), round(right - x), round(bottom - y)))
    if not core.width or not core.height:
        return None
    hue, saturation, value = np.moveaxis(np.asarray(core.convert("RGB").convert("HSV")).astype(int), -1, 0)
    degrees = hue * 360 / 255
    named = np.searchsorted(list(_HUES.values()), degrees, side="right") % len(_HUES)
    names = np.array(list(_HUES), dtype=object)[named]
    # A dark orange or yellow is called brown, a pale red pink.
    names[np.isin(names, ("red", "orange", "yellow")) & (value < 150) & (degrees > 10) & (degrees < 60)] = "brown"
    names[(names == "red") & (saturation < 150) & (value > 190)] = "pink"
    names[saturation < _GREY] = "grey"
    names[(saturation < _GREY) & (value > _LIGHT)] = "white"
    names[value < _DARK] = "black"
    colours, counts = np.unique(names.astype(str), return_counts=True)
    most = str(colours[counts.argmax()])
    return None if most == "grey" else most
