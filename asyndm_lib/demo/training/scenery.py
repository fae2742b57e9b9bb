"""Sceneries: drawn surroundings that captions name, each with the things that belong there.

They make scenes with something to look at besides the objects. The comparison of methods trains a
model of its own on them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image, ImageDraw

from .concepts import CONCEPTS

EDGE = 256
VARIANTS = 48
"""How many drawings there are of every scenery."""

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Scenery:
    """Surroundings of one kind.

    ``phrases``: what captions call it. ``things``: names of the concepts that belong there.
    ``draw(rng)``: one drawing, RGB, :data:`EDGE` pixels square.
    """

    phrases: tuple[str, ...]
    things: tuple[str, ...]
    draw: Callable[[np.random.Generator], Image.Image]

    @cached_property
    def concepts(self) -> np.ndarray:
        """The numbers of ``things`` in :data:`CONCEPTS`."""
        names = [concept.name for concept in CONCEPTS]
        return np.array([names.index(thing) for thing in self.things])


def backdrops(seed: int = 0) -> np.ndarray:
    """All drawings, ``uint8 [sceneries · VARIANTS, EDGE, EDGE, 3]``, with those of one scenery
    together."""
    rng = np.random.default_rng(seed)
    return np.stack([np.asarray(scenery.draw(rng)) for scenery in SCENERIES for _ in range(VARIANTS)])


def _beach(rng: np.random.Generator) -> Image.Image:
    picture, horizon = _sky(rng, (150, 205, 245)), int(rng.integers(60, 100))
    shore = horizon + int(rng.integers(35, 70))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, horizon, EDGE, shore), fill=_shade(rng, (64, 150, 200)))
    for y in range(horizon + 8, shore, 12):
        draw.line(_wave(rng, y, 3), fill=(190, 226, 240), width=2)
    draw.polygon([*_wave(rng, shore, 6), (EDGE, EDGE), (0, EDGE)], fill=_shade(rng, (238, 214, 160)))
    return _speckled(rng, picture, shore, 60, (205, 178, 122))


def _forest(rng: np.random.Generator) -> Image.Image:
    picture = _gradient(_shade(rng, (96, 142, 104)), _shade(rng, (52, 84, 52)))
    draw = ImageDraw.Draw(picture)
    for x in _spread(rng, 7):
        width = int(rng.integers(10, 20))
        draw.rectangle((x, 0, x + width, int(rng.integers(190, 250))), fill=_shade(rng, (98, 74, 56), 18))
    for _ in range(26):
        x, y, r = rng.integers(-20, EDGE), rng.integers(-30, 60), rng.integers(14, 34)
        draw.ellipse((x, y, x + 2 * r, y + r), fill=_shade(rng, (58, 110, 62), 20))
    return _speckled(rng, picture, 200, 50, (120, 150, 84))


def _snow(rng: np.random.Generator) -> Image.Image:
    picture = _gradient(_shade(rng, (150, 176, 206)), _shade(rng, (206, 220, 236)))
    draw = ImageDraw.Draw(picture)
    for y, tone in ((120, 226), (165, 238), (205, 248)):
        draw.polygon([*_wave(rng, y, 18), (EDGE, EDGE), (0, EDGE)], fill=(tone - 6, tone, min(tone + 6, 255)))
    return _speckled(rng, picture, 0, 90, (255, 255, 255), 3)


def _desert(rng: np.random.Generator) -> Image.Image:
    picture = _sky(rng, (246, 206, 150))
    draw = ImageDraw.Draw(picture)
    for y, tone in ((105, (226, 170, 104)), (150, (212, 150, 88)), (200, (196, 132, 74))):
        draw.polygon([*_wave(rng, y, 26), (EDGE, EDGE), (0, EDGE)], fill=_shade(rng, tone))
    return picture


def _sea(rng: np.random.Generator) -> Image.Image:
    picture = _gradient(_shade(rng, (72, 170, 206)), _shade(rng, (22, 66, 122)))
    draw = ImageDraw.Draw(picture)
    for x in _spread(rng, 6):
        blades = [(x + int(6 * np.sin(y / 14 + x)), y) for y in range(EDGE, int(rng.integers(150, 215)), -6)]
        draw.line(blades, fill=_shade(rng, (40, 132, 96), 20), width=6)
    for _ in range(18):
        x, y, r = rng.integers(0, EDGE), rng.integers(0, EDGE), rng.integers(2, 7)
        draw.ellipse((x - r, y - r, x + r, y + r), outline=(186, 226, 240), width=2)
    return picture


def _space(rng: np.random.Generator) -> Image.Image:
    picture = _gradient(_shade(rng, (24, 22, 52)), _shade(rng, (46, 28, 76)))
    draw = ImageDraw.Draw(picture)
    x, y, r = (int(rng.integers(low, high)) for low, high in ((20, 236), (20, 236), (16, 36)))
    draw.ellipse((x - r, y - r, x + r, y + r), fill=_shade(rng, (150, 120, 160), 40))
    return _speckled(rng, picture, 0, 80, (246, 240, 214), 3)


def _city(rng: np.random.Generator) -> Image.Image:
    picture, street = _sky(rng, (176, 196, 216)), int(rng.integers(178, 204))
    draw = ImageDraw.Draw(picture)
    x = -int(rng.integers(0, 30))
    while x < EDGE:
        width, top = int(rng.integers(34, 60)), int(rng.integers(20, 110))
        draw.rectangle((x, top, x + width - 2, street), fill=_shade(rng, (136, 130, 136), 26))
        for u in range(x + 6, x + width - 10, 13):
            for v in range(top + 8, street - 12, 18):
                draw.rectangle((u, v, u + 6, v + 9), fill=_shade(rng, (236, 220, 160), 16))
        x += width
    draw.rectangle((0, street, EDGE, EDGE), fill=_shade(rng, (88, 90, 96)))
    for x in range(int(rng.integers(0, 40)), EDGE, 48):
        draw.rectangle((x, street + 26, x + 24, street + 31), fill=(226, 226, 220))
    return picture


def _meadow(rng: np.random.Generator) -> Image.Image:
    picture, horizon = _sky(rng, (160, 212, 246)), int(rng.integers(70, 110))
    draw = ImageDraw.Draw(picture)
    draw.polygon([*_wave(rng, horizon, 12), (EDGE, EDGE), (0, EDGE)], fill=_shade(rng, (126, 190, 92)))
    for _ in range(130):
        x, y = int(rng.integers(0, EDGE)), int(rng.integers(horizon + 16, EDGE))
        draw.line((x, y, x + int(rng.integers(-3, 4)), y - 9), fill=_shade(rng, (88, 152, 66), 20), width=2)
    return _speckled(rng, picture, horizon + 16, 20, (250, 240, 150), 4)


def _table(rng: np.random.Generator) -> Image.Image:
    wood = _shade(rng, (180, 128, 84))
    picture = Image.new("RGB", (EDGE, EDGE), wood)
    draw = ImageDraw.Draw(picture)
    for top in range(-int(rng.integers(0, 40)), EDGE, 42):
        draw.rectangle((0, top, EDGE, top + 40), fill=_shade(rng, wood, 12))
        for y in range(top + 6, top + 38, 8):
            draw.line(_wave(rng, y, 2), fill=_shade(rng, (146, 98, 60), 10), width=1)
        draw.line((0, top + 41, EDGE, top + 41), fill=(104, 68, 44), width=2)
    return picture


def _wall(rng: np.random.Generator) -> Image.Image:
    brick = _shade(rng, (172, 96, 78))
    picture = Image.new("RGB", (EDGE, EDGE), (206, 192, 180))
    draw, across = ImageDraw.Draw(picture), int(rng.integers(0, 44))
    for row, y in enumerate(range(-int(rng.integers(0, 22)), EDGE, 22)):
        for x in range(-across - 22 * (row % 2), EDGE, 44):
            draw.rectangle((x, y, x + 41, y + 19), fill=_shade(rng, brick, 14))
    return picture


SCENERIES: tuple[Scenery, ...] = (
    Scenery(("on a beach", "at the beach"),
            ("crab", "turtle", "sailboat", "umbrella", "watermelon", "pineapple", "hat", "balloon"), _beach),
    Scenery(("in a forest", "in the woods"),
            ("fox", "bear", "owl", "tree", "mushroom", "rabbit", "snail", "tiger"), _forest),
    Scenery(("in the snow",), ("snowman", "penguin", "gift", "bell", "star", "hat", "bear", "rabbit"), _snow),
    Scenery(("in the desert", "in a desert"),
            ("cactus", "lion", "elephant", "horse", "car", "airplane", "monkey", "snail"), _desert),
    Scenery(("under water", "in the sea"),
            ("fish", "octopus", "whale", "crab", "turtle", "crown", "key", "star"), _sea),
    Scenery(("in space",), ("rocket", "robot", "star", "airplane", "ghost", "camera", "unicorn", "basketball"), _space),
    Scenery(("in a city", "on a street"),
            ("car", "bus", "bicycle", "traffic light", "dog", "cat", "house", "umbrella"), _city),
    Scenery(("on a meadow", "in the grass"),
            ("cow", "pig", "chicken", "bee", "butterfly", "sunflower", "rose", "horse"), _meadow),
    Scenery(("on a wooden table", "on a table"),
            ("apple", "banana", "strawberry", "pizza", "hamburger", "cake", "doughnut", "sandwich", "carrot"), _table),
    Scenery(("in front of a brick wall", "at a brick wall"),
            ("guitar", "soccer ball", "basketball", "trophy", "mouse", "cat", "bicycle", "panda"), _wall),
)


def _shade(rng: np.random.Generator, colour: Colour, by: int = 10) -> Colour:
    """``colour``, a little lighter or darker."""
    move = int(rng.integers(-by, by + 1))
    return tuple(min(max(part + move, 0), 255) for part in colour)


def _gradient(top: Colour, bottom: Colour) -> Image.Image:
    blend = np.linspace(0, 1, EDGE)[:, None, None]
    rows = np.array(top) * (1 - blend) + np.array(bottom) * blend
    return Image.fromarray(rows.repeat(EDGE, axis=1).round().astype(np.uint8))


def _sky(rng: np.random.Generator, colour: Colour) -> Image.Image:
    """A sky of that colour with two clouds."""
    picture = _gradient(_shade(rng, colour), tuple(min(part + 36, 255) for part in colour))
    draw = ImageDraw.Draw(picture)
    for _ in range(2):
        x, y = int(rng.integers(0, EDGE - 60)), int(rng.integers(4, 50))
        for at in (0, 16, 32):
            draw.ellipse((x + at, y - at % 32 // 2, x + at + 30, y + 16), fill=(248, 250, 252))
    return picture


def _wave(rng: np.random.Generator, y: float, height: float) -> list[tuple[float, float]]:
    """A curved line from side to side."""
    first, second, length = rng.random() * 6, rng.random() * 6, rng.uniform(24, 44)
    across = np.arange(0, EDGE + 8, 8)
    line = y + height / 2 * (np.sin(across / length + first) + np.sin(across / (2.3 * length) + second))
    return list(zip(across.tolist(), line.tolist(), strict=True))


def _spread(rng: np.random.Generator, count: int) -> Iterator[int]:
    """Places from side to side, not too regular."""
    return (int((number + rng.random()) * EDGE / count) for number in range(count))


def _speckled(
    rng: np.random.Generator, picture: Image.Image, top: int, count: int, colour: Colour, size: int = 2
) -> Image.Image:
    """``picture`` with dots from the row ``top`` on."""
    draw = ImageDraw.Draw(picture)
    for _ in range(count):
        x, y, r = (int(rng.integers(low, high)) for low, high in ((0, EDGE), (top + 8, EDGE), (1, size + 1)))
        draw.ellipse((x, y, x + r, y + r), fill=colour)
    return picture
