"""Which words of a prompt may name a thing, by the word lists alone."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyndm_lib.prompt.word_lists import BEFORE_A_THING, FUNCTION, OTHERS, things

PROMPTS = {
    "a cat and a basketball": "cat basketball",
    "A photo of two astronauts riding horses on the moon, 8k, highly detailed": "astronauts horses moon",
    "masterpiece, best quality, 1girl, red dress, garden": "1girl dress garden",
    "absurdres, 2girls, long_hair, blue eyes, uniform, looking at viewer": "2girls long_hair eyes uniform",
    "oil painting of a lighthouse at sunset, stormy sea, depth of field": "lighthouse sunset sea",
    "a blue-haired woman in a t-shirt drinking tea": "woman t-shirt tea",
    "close-up portrait of an old man with a white beard, bokeh, 50mm": "man beard",
    "a glass of wine on a wooden table next to a glass bowl": "glass wine table bowl",
    "an orange cat, an orange": "cat orange",
    "a stone wall behind a stone": "wall stone",
    "a light blue dress under a traffic light": "dress traffic light",
    "a (gold:1.2) ring on a [green] ((cushion))": "ring cushion",
    "a bear on a red background": "bear",
    "a cartoon of three mushrooms to the left of 2 keys, clip art": "mushrooms keys",
    "the house's roof, a mother-in-law, rock 'n' roll": "house's roof mother-in-law rock roll",
    "Cat, cat and CAT": "Cat",
    "<lora:add_detail:0.8> a fox <asyn:fox> BREAK snow": "fox snow",
    # What the lists do not know is left to the token maps.
    "ein Hund und eine Katze": "ein Hund und eine Katze",
    "кошка, мяч": "кошка мяч",
    "一只猫\uff0c一个篮球": "一只猫 一个篮球",
    "قطة وكلب": "قطة وكلب",
    "बिल्ली और कुत्ता": "बिल्ली और कुत्ता",
    "🐱 with ❤️ and 🏳️‍🌈🏀": "🐱 ❤️ 🏳️‍🌈🏀",
    # Nothing
    "": "",
    " \n\t": "",
    "..., !!! ((())) [:] -- '' “”": "",
    "1, 2.5, 1990s, 4k, 35mm": "",
    "a, b, of the": "",
    "\u202e\u200d\ufeff\x00": "",
}


@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_words_that_may_name_a_thing(prompt):
    assert things(prompt) == PROMPTS[prompt].split()


def test_the_lists_are_in_lower_case_and_share_no_word():
    for words in (FUNCTION, OTHERS, BEFORE_A_THING):
        assert all(word == word.casefold() for word in words)
    assert not FUNCTION & OTHERS
    assert not BEFORE_A_THING & (FUNCTION | OTHERS)


@given(st.text(max_size=200))
def test_any_text_gives_words_of_it_each_once(text):
    words = things(text)
    assert all(word and word in text and not any(char.isspace() for char in word) for word in words)
    assert len({word.casefold() for word in words}) == len(words)


@given(st.lists(st.sampled_from(["cat", "a", "red", "light", "glass", ",", ".", "(", ":1.2)", "[", "🐱"]), max_size=30))
def test_more_spaces_change_nothing(pieces):
    assert things(" ".join(pieces)) == things("  \t".join(pieces))


@pytest.mark.parametrize(
    "text",
    ["cat " * 2500, "x" * 10_000, "," * 10_000, "<" * 10_000, "<a:" * 3000, "🐱" * 10_000, "a-" * 5000, "half " * 2000],
    ids=lambda text: text[:6],
)
def test_long_prompts_are_read_at_once(text):
    start = time.process_time()
    assert len(things(text)) <= 1
    assert time.process_time() - start < 1
