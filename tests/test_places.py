"""Where targets stand in prompts, by the real tokenizer: the table that the page reads too."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

import asyndm_lib.demo
from asyndm_lib.hosts.standalone.text_encoders import Clip, tokenize
from asyndm_lib.prompt.target_list import Target
from asyndm_lib.prompt.token_search import Spelling, Token, find
from asyndm_lib.prompt.vocabulary import as_written

TABLE = json.loads((Path(__file__).parent / "target_grammar.json").read_text(encoding="utf-8"))["places"]


@pytest.fixture(scope="module")
def clip() -> Clip:
    """CLIP's tokenizer with its first 6,000 merges."""
    return Clip("tokenizer", Path(asyndm_lib.demo.__file__).parent / "model")


@pytest.fixture(scope="module")
def spelled(clip):
    """A text → its spelling."""
    return lambda text: Spelling(tokenize(clip, text))


@pytest.mark.parametrize("case", TABLE, ids=lambda case: f"{case['target']} in {case['prompt']}"[:60])
def test_a_target_is_found_where_the_prompt_has_it(case, spelled):
    found = find([spelled(case["prompt"])], spelled(case["target"]), Target("x"))
    assert len(found.occurrences) == case["found"], case.get("why")


@pytest.mark.parametrize(
    ("prompt", "target", "positions"),
    [
        # sab er ( f ate ), 1 girl
        ("saber (fate), 1girl", "saber (fate)", [(1, 2, 3, 4, 5, 6)]),
        ("saber (fate)", "saber (fate)", [(1, 2, 3, 4, 5, 6)]),
        ("c.c., c.c.", "c.c.", [(1, 2, 3, 4), (5, 6, 7, 8)]),
        ("a,^_^,b", "^_^", [(3, 4, 5)]),
        ("!?!", "!", [(1,), (2,)]),  # ! ?!
        ("🐱🐶", "🐱", [(1, 2)]),
        ("🐱🐶", "🐶", [(3, 4)]),
    ],
)
def test_the_tokens_that_hold_a_target(prompt, target, positions, spelled):
    found = find([spelled(prompt)], spelled(target), Target("x"))
    assert [where for _, where in found.occurrences] == positions


@pytest.mark.parametrize(
    "text", ["", " ", "a cat-like  (saber),\tk-on! 1girl", "猫\uff0c犬 🐱🐶 Bär don\u2019t", "a\u3000b\xa0c"]
)
def test_only_blanks_stand_between_the_words_of_a_text(text, clip):
    tokens = tokenize(clip, text)
    begins = [n for n, token in enumerate(tokens) if token.apart]
    words = [[token.key for token in tokenize(clip, word)] for word in text.split()]
    assert begins == [sum(map(len, words[:n])) for n in range(len(words))]


def test_an_inversion_in_place_of_some_words_does_not_confuse_those_behind_it():
    tokens = [Token(1, 1, False), Token(2, 2, True), Token("style", 3, True), Token(3, 4, True), Token(4, 5, True)]
    words = [[1, 2], [7, 8, 9, 3], [4]]
    assert [token.apart for token in as_written(tokens, words)] == [True, False, True, False, True]
    assert [token.apart for token in as_written(tokens, [])] == [True, False, True, True, True]


def test_a_textual_inversion_is_found_by_its_name_and_by_no_text():
    embedding = Token("cat", 1, True)
    words = Token(7, 1, True, b"cat")
    comma = Token(8, 2, True, b",")
    assert Spelling([embedding, comma]).places(Spelling([embedding])) == [(1,)]
    assert Spelling([words, comma]).places(Spelling([embedding])) == []
    assert Spelling([embedding, comma]).places(Spelling([words])) == []


def test_a_long_prompt_of_one_letter_is_searched_soon(spelled):
    prompt, target = spelled("a " * 4000), spelled("a " * 1000 + "b")
    begun = time.perf_counter()
    assert prompt.places(target) == []
    assert time.perf_counter() - begun < 1
