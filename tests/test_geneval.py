"""Prompts in GenEval's manner, and the rules by which detections are judged."""

from __future__ import annotations

import string
from collections import Counter

import pytest
from PIL import Image, ImageDraw
from stand_ins import words

from asyndm_lib.evaluation import geneval
from asyndm_lib.evaluation.detectors import Detection
from asyndm_lib.evaluation.geneval import COLOURS, NAMES, SHARES, Scene, colour_of, phrase, prompts, shows
from asyndm_lib.prompt.prompt_targets import PromptTargets
from asyndm_lib.prompt.target_list import parse_targets

ALL = prompts()


def test_553_prompts_of_six_kinds_always_the_same():
    assert len(ALL) == geneval.USUAL == 553
    assert Counter(scene.kind for scene in ALL) == SHARES
    assert prompts() == ALL
    assert len({scene.text for scene in ALL}) == 553
    assert len(set(prompts(seed=1)) & set(ALL)) < 200
    assert prompts(40) == ALL[:40]
    assert len(prompts(1200)) == 1200


def test_any_first_part_has_nearly_the_same_mixture():
    for count in (12, 60, 300):
        shares = Counter(scene.kind for scene in ALL[:count])
        assert all(abs(shares[kind] - count * SHARES[kind] / 553) <= 1 for kind in SHARES)


def test_the_things_are_cocos():
    assert len(NAMES) == len(set(NAMES)) == 80
    assert {scene.things[0][0] for scene in ALL if scene.kind == "one object"} == set(NAMES)
    assert all(name in NAMES for scene in ALL for name, _ in scene.things)


def test_what_each_kind_asks_for():
    for scene in ALL:
        counts = [count for _, count in scene.things]
        assert (scene.place is not None) == (scene.kind == "position")
        assert len(scene.colours) == {"colours": 1, "colour attribution": 2}.get(scene.kind, 0)
        assert len(scene.things) == (2 if scene.kind in ("two objects", "position", "colour attribution") else 1)
        assert (max(counts) > 1) == (scene.kind == "counting")
        assert len({name for name, _ in scene.things}) == len(scene.things)


def test_every_target_stands_once_in_its_prompt():
    for scene in ALL:
        targets = parse_targets(scene.targets)
        assert len(targets) == len(scene.things)
        found = PromptTargets(targets, [[[(0, scene.text)]]], words).found(0, 0)
        assert [len(where.occurrences) for where in found] == [1] * len(targets), scene


@pytest.mark.parametrize(
    ("name", "count", "colour", "text"),
    [
        ("cat", 1, "", "a cat"),
        ("apple", 1, "", "an apple"),
        ("umbrella", 1, "red", "a red umbrella"),
        ("cup", 1, "orange", "an orange cup"),
        ("bus", 3, "", "three buses"),
        ("bench", 2, "", "two benches"),
        ("knife", 4, "", "four knives"),
        ("person", 2, "", "two people"),
        ("mouse", 1, "", "a computer mouse"),
        ("scissors", 2, "", "two pairs of scissors"),
    ],
)
def test_phrases(name, count, colour, text):
    assert phrase(name, count, colour) == text


# Judging

SIDE = 200


def scene(kind, *things, place=None, colours=()):
    return Scene("", "", tuple(things), place, kind, tuple(colours))


def at(name, x, y, confidence=0.9, half=10):
    return Detection(name, confidence, (x - half, y - half, x + half, y + half))


def judged(wanted, *found, picture=None):
    return shows(wanted, found, picture or Image.new("RGB", (SIDE, SIDE), "white"))


def test_one_and_two_objects_are_there():
    one, two = scene("one object", ("cat", 1)), scene("two objects", ("cat", 1), ("dog", 1))
    assert judged(one, at("cat", 50, 50))
    assert judged(one, at("cat", 50, 50), at("cat", 90, 90), at("bench", 20, 20))  # what else is there does not matter
    assert not judged(one, at("dog", 50, 50))
    assert not judged(one)
    assert judged(two, at("cat", 50, 50), at("dog", 90, 90))
    assert not judged(two, at("cat", 50, 50), at("cat", 90, 90))


def test_counting_is_exact():
    three = scene("counting", ("cat", 3))
    cats = [at("cat", 40 * n, 40 * n) for n in range(1, 5)]
    assert judged(three, *cats[:3], at("dog", 10, 10))
    assert not judged(three, *cats[:2])
    assert not judged(three, *cats)


@pytest.mark.parametrize(
    ("place", "second", "right"),
    [
        *[("left of", (121, 100), True), ("left of", (119, 100), False), ("left of", (80, 100), False)],
        *[("right of", (79, 100), True), ("right of", (81, 100), False), ("right of", (121, 100), False)],
        *[("above", (100, 121), True), ("above", (100, 119), False), ("above", (121, 100), False)],
        *[("below", (100, 79), True), ("below", (100, 81), False), ("below", (100, 121), False)],
    ],
)
def test_a_place_is_a_tenth_of_the_side_between_centres(place, second, right):
    wanted = scene("position", ("cat", 1), ("dog", 1), place=place)
    assert judged(wanted, at("cat", 100, 100), at("dog", *second)) == right
    assert not judged(wanted, at("cat", 100, 100))


def test_a_place_is_that_of_the_surest():
    wanted = scene("position", ("cat", 1), ("dog", 1), place="left of")
    cats = at("cat", 150, 100, 0.5), at("cat", 50, 100, 0.9)
    assert judged(wanted, *cats, at("dog", 100, 100))
    assert not judged(wanted, cats[0]._replace(confidence=0.95), cats[1], at("dog", 100, 100))


RGB = {
    "red": ((200, 30, 30), (250, 0, 0), (120, 10, 20)),
    "orange": ((255, 140, 0), (240, 120, 40)),
    "yellow": ((250, 220, 20), (255, 255, 0), (220, 200, 60)),
    "green": ((30, 140, 40), (0, 255, 0), (120, 180, 60)),
    "blue": ((20, 60, 200), (0, 0, 255), (90, 160, 230), (0, 200, 220)),
    "purple": ((120, 40, 160), (150, 80, 200)),
    "pink": ((255, 105, 180), (255, 182, 193), (250, 20, 147)),
    "brown": ((110, 60, 20), (139, 69, 19), (90, 55, 40)),
    "black": ((10, 10, 10), (40, 35, 38)),
    "white": ((250, 250, 250), (200, 198, 195)),
}


@pytest.mark.parametrize(("colour", "rgb"), [(colour, rgb) for colour, every in RGB.items() for rgb in every])
def test_colours_have_their_names(colour, rgb):
    assert colour_of(Image.new("RGB", (40, 40), rgb), (0, 0, 40, 40)) == colour


def test_a_colour_is_that_of_most_pixels_in_the_core_of_the_box():
    assert set(RGB) == set(COLOURS)
    picture = Image.new("RGB", (SIDE, SIDE), "green")
    draw = ImageDraw.Draw(picture)
    draw.rectangle((60, 60, 140, 140), "red")  # the box goes beyond it, its core does not
    draw.rectangle((90, 90, 110, 110), "blue")
    assert colour_of(picture, (40, 40, 160, 160)) == "red"
    assert colour_of(picture, (80, 80, 120, 120)) == "blue"
    assert colour_of(picture, (150, 150, 190, 190)) == "green"
    assert colour_of(picture, (50.1, 50.1, 50.3, 50.3)) is None
    assert colour_of(Image.new("RGB", (40, 40), (120, 120, 120)), (0, 0, 40, 40)) is None
    assert colour_of(picture.convert("L"), (40, 40, 160, 160)) is None


def test_every_thing_needs_its_own_colour():
    picture = Image.new("RGB", (SIDE, SIDE), "white")
    draw = ImageDraw.Draw(picture)
    draw.rectangle((20, 20, 60, 60), "red")
    draw.rectangle((120, 120, 160, 160), "blue")
    red, blue = (40, 40), (140, 140)
    one = scene("colours", ("cup", 1), colours=("red",))
    both = scene("colour attribution", ("cup", 1), ("bowl", 1), colours=("red", "blue"))
    assert judged(one, at("cup", *red), at("cup", *blue), picture=picture)
    assert not judged(one, at("cup", *blue), picture=picture)
    assert judged(both, at("cup", *red), at("bowl", *blue), picture=picture)
    assert not judged(both, at("cup", *blue), at("bowl", *red), picture=picture)
    assert not judged(both, at("cup", *red), picture=picture)


def test_the_words_are_plain():
    letters = set(string.ascii_letters + " ")
    assert all(set(scene.text) <= letters for scene in ALL)
