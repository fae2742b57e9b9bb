"""The words of a prompt that may have been meant by a target that is not among them."""

from __future__ import annotations

import time

import pytest

from asyndm_lib.prompt.suggestions import MOST, nearest, words_of
from asyndm_lib.prompt.target_list import Target


@pytest.mark.parametrize(
    ("target", "prompt", "expected"),
    [
        ("cat", "two cats", ["cats"]),
        ("Cats", "a Cat", ["Cat"]),
        ("child", "children in a park", ["children"]),
        ("basket ball", "a cat and a basketball", ["basketball"]),
        ("basketbal", "a cat and a (basketball:1.2), 8k", ["basketball"]),
        ("red cat", "two red cats and a dog", ["red cats"]),
        ("cat dog", "a cat and a dog", []),
        ("cat", "a cat-like thing", ["cat-like"]),
        ("hair", "1girl, long_hair", ["long_hair"]),
        ("zebra", "a cat and a dog", []),
        ("cat", "", []),
        ("cat", "[a dog:cats:0.5]", ["cats"]),
        ("colour", "the color of colours", ["colours", "color"]),
        ("猫", "黒猫がいる", []),
    ],
)
def test_the_nearest_words(target, prompt, expected):
    assert nearest(Target(target), [prompt]) == expected


def test_a_target_of_another_occurrence_may_mean_its_own_word():
    assert nearest(Target("cat", 2), ["a cat"]) == ["cat"]
    assert nearest(Target("cat"), ["a cat"]) == []


def test_there_are_few_and_the_likest_comes_first():
    assert nearest(Target("cats"), ["cat cats1 catsy rats hats"]) == ["cats1", "catsy"][:MOST]


@pytest.mark.parametrize("target", ["z" * 4000, "zebra " * 600, "cat", "ca t"])
def test_long_texts_take_no_time(target):
    start = time.perf_counter()
    for text in ("z" * 8000, "cap " * 2000, " ".join(f"z{n}" for n in range(2000)), "(" * 4000):
        nearest(Target(target.strip()), [text])
    assert time.perf_counter() - start < 2


def test_the_words_of_texts_are_without_weights_and_brackets():
    assert words_of(["(a cat:1.2), a dog BREAK [x]", "a bird."]) == ["a", "cat", "dog", "x", "bird"]
