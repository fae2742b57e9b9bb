"""The things the embedded model can draw: name, icon of the Fluent Emoji set (flat style),
plural."""

from __future__ import annotations

from typing import NamedTuple


class Concept(NamedTuple):
    """One thing: the words that name it, the icon that shows it, and the words for several of
    it."""

    name: str
    icon: str
    plural: str


_PLURALS = {"mouse": "mice", "fish": "fish", "strawberry": "strawberries", "butterfly": "butterflies",
            "trophy": "trophies", "cactus": "cactuses", "bus": "buses", "fox": "foxes",
            "sandwich": "sandwiches", "octopus": "octopuses"}

_ICONS = {
    "dog": "dog-face", "cat": "cat-face", "mouse": "mouse-face", "rabbit": "rabbit-face", "fox": "fox",
    "bear": "bear", "panda": "panda", "koala": "koala", "tiger": "tiger-face", "lion": "lion", "cow": "cow-face",
    "pig": "pig-face", "frog": "frog", "monkey": "monkey-face", "chicken": "chicken", "penguin": "penguin",
    "owl": "owl", "horse": "horse-face", "unicorn": "unicorn", "bee": "honeybee", "turtle": "turtle",
    "octopus": "octopus", "crab": "crab", "whale": "spouting-whale", "fish": "tropical-fish", "snail": "snail",
    "butterfly": "butterfly", "elephant": "elephant",
    "apple": "red-apple", "banana": "banana", "strawberry": "strawberry", "watermelon": "watermelon",
    "pizza": "pizza", "hamburger": "hamburger", "cake": "birthday-cake", "doughnut": "doughnut",
    "sandwich": "sandwich", "carrot": "carrot", "pineapple": "pineapple",
    "car": "automobile", "bus": "bus", "bicycle": "bicycle", "rocket": "rocket", "airplane": "airplane",
    "sailboat": "sailboat", "house": "house", "tree": "deciduous-tree", "cactus": "cactus",
    "sunflower": "sunflower", "rose": "rose",
    "umbrella": "umbrella", "guitar": "guitar", "basketball": "basketball", "soccer ball": "soccer-ball",
    "key": "key", "crown": "crown", "gift": "wrapped-gift", "balloon": "balloon", "hat": "top-hat",
    "trophy": "trophy", "bell": "bell", "ghost": "ghost", "robot": "robot", "mushroom": "mushroom",
    "snowman": "snowman", "star": "star", "camera": "camera", "traffic light": "vertical-traffic-light",
    "red heart": "red-heart", "yellow heart": "yellow-heart", "green heart": "green-heart",
    "blue heart": "blue-heart", "purple heart": "purple-heart",
    "red square": "red-square", "yellow square": "yellow-square", "green square": "green-square",
    "blue square": "blue-square",
    "red circle": "red-circle", "yellow circle": "yellow-circle", "green circle": "green-circle",
    "blue circle": "blue-circle",
    "red book": "closed-book", "green book": "green-book", "blue book": "blue-book",
}


def _plural(name: str) -> str:
    return _PLURALS.get(name, "snowmen" if name == "snowman" else name + "s")


CONCEPTS: tuple[Concept, ...] = tuple(Concept(name, icon, _plural(name)) for name, icon in _ICONS.items())

UNSEEN: tuple[Concept, ...] = tuple(
    Concept(name, name.replace(" ", "-"), _plural(name))
    for name in ("purple square", "purple circle", "brown square", "brown circle", "brown heart", "pink heart",
                 "black heart"))
"""Shapes in colours that training never showed together, though it showed each shape and named each
colour. They can be drawn and counted, to measure whether a model binds a colour to a shape."""

BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "red": (226, 92, 92), "orange": (244, 162, 89), "yellow": (250, 228, 130), "green": (132, 200, 136),
    "blue": (116, 170, 236), "purple": (170, 134, 214), "pink": (248, 186, 210), "brown": (160, 122, 94),
    "gray": (168, 172, 178), "black": (38, 38, 42), "white": (255, 255, 255),
}
"""Plain background colours that captions can name."""

UNNAMED_BACKGROUNDS: tuple[tuple[int, int, int], ...] = ((255, 255, 255), (236, 237, 240))
"""Backgrounds of scenes whose caption names none."""
