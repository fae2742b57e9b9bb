"""Words in the tokens of T5, Gemma, Qwen and their like, of which blanks are parts; and prompts
that several text encoders read."""

from __future__ import annotations

import pytest
import torch

from asyndm_lib.prompt.candidates import candidates
from asyndm_lib.prompt.prompt_targets import PromptTargets
from asyndm_lib.prompt.report import match
from asyndm_lib.prompt.target_list import parse_targets
from asyndm_lib.prompt.token_search import UNREAD, Spelling, Token, find
from asyndm_lib.prompt.vocabulary import byte_text, sentence_text, spaced


def sentence(*pieces: str) -> list[Token]:
    return list(spaced(((hash(piece), at, piece) for at, piece in enumerate(pieces)), sentence_text))


def of_bytes(*pieces: str) -> list[Token]:
    return list(spaced(((hash(piece), at, piece) for at, piece in enumerate(pieces)), byte_text))


def places(prompt: list[Token], words: list[Token]) -> list[tuple[int, ...]]:
    (target,) = parse_targets("x")
    return [positions for _, positions in find([Spelling(prompt)], Spelling(words), target).occurrences]


@pytest.mark.parametrize(
    ("prompt", "words", "expected"),
    [
        # T5 writes "a" as two pieces, and a comma as one of its own.
        (["▁", "a", "▁cat", ",", "▁", "a", "▁dog"], ["▁dog"], [(6,)]),
        (["▁", "a", "▁cat", ",", "▁", "a", "▁dog"], ["▁", "a"], [(1,), (5,)]),
        (["▁basket", "ball", "▁cat", "s"], ["▁basket", "ball"], [(0, 1)]),
        (["▁basket", "ball", "▁cat", "s"], ["▁cat"], []),
        (["▁basket", "ball"], ["▁ball"], []),
        (["▁Cat", ".", "▁CAT"], ["▁cat"], [(0,), (2,)]),
        # Emphasis is tokenized apart: the word has another id behind a bracket than behind a blank.
        (["▁", "a", "▁", "cat"], ["▁cat"], [(3,)]),
        (["▁red", "▁cat"], ["▁red", "▁cat"], [(0, 1)]),
        (["▁red", "cat"], ["▁red", "▁cat"], []),
        # Gemma writes what it does not know as bytes.
        (["▁", "<0xE7>", "<0x8C>", "<0xAB>", "▁cat"], ["▁", "<0xE7>", "<0x8C>", "<0xAB>"], [(1, 2, 3)]),
    ],
)
def test_sentence_pieces(prompt, words, expected):
    assert places(sentence(*prompt), sentence(*words)) == expected


@pytest.mark.parametrize(
    ("prompt", "words", "expected"),
    [
        # "cat" at the beginning of a segment, and with the blank before it.
        (["a", "Ġcat", "Ġand", "Ġa", "Ġdog"], ["cat"], [(1,)]),
        (["cat", "Ġand", "Ġbasket", "ball"], ["basket", "ball"], [(2, 3)]),
        (["a", "Ġcat", "s"], ["cat"], []),
        (["Ġred", "Ġ", "cat"], ["red", "Ġcat"], [(0, 1, 2)]),
        (["a", "Ċ", "cat"], ["cat"], [(2,)]),
        # One letter, two tokens.
        (["Ġ", "\u00c3", "\u00a4", "ff", "chen"], ["\u00c3", "\u00a4", "ffchen"], [(1, 2, 3, 4)]),
    ],
)
def test_tokens_of_bytes(prompt, words, expected):
    assert places(of_bytes(*prompt), of_bytes(*words)) == expected


def test_a_special_token_is_no_text():
    first, second = sentence("<unk>", "▁cat")
    assert (first.text, first.ends_word) == (None, True)
    assert (second.text, second.apart) == (b"cat", True)


# ---- several readings

def twice(text: str) -> list[Token]:
    """One token a word for the first encoder, three letters a token for the second, whose rows come
    behind 10 of the first."""
    first = [Token(word, at + 1, True, word.encode()) for at, word in enumerate(text.split())]
    pieces = [(word, word[at : at + 3]) for word in text.split() for at in range(0, len(word), 3)]
    second = [
        Token(piece, 10 + at, False, piece.encode(), word.startswith(piece), reading=1)
        for at, (word, piece) in enumerate(pieces)
    ]
    return first + second


def test_a_word_stands_in_every_reading():
    targets = PromptTargets(parse_targets("sandwich"), [[[(5, "a sandwich")]]], twice)
    (found,) = targets.found(0, 0)
    assert found.occurrences == ((0, (2, 11, 12, 13)),)
    assert targets.weights(0, 0, 0, 16)[:, 0].nonzero().flatten().tolist() == [2, 11, 12, 13]


def test_an_occurrence_is_counted_in_each_reading():
    targets = PromptTargets(parse_targets("cat#2"), [[[(5, "cat cat")]]], twice)
    assert targets.found(0, 0)[0].occurrences == ((0, (2, 11)),)
    assert PromptTargets(parse_targets("cat#3"), [[[(5, "cat cat")]]], twice).missing()


def test_the_report_tells_of_the_first_reading():
    answer = match([[(5, "a sandwich")]], "sandwich", [], twice)
    (target,) = answer["targets"]
    assert target["occurrences"] == [{"part": 0, "tokens": [{"chunk": 0, "index": 2}]}]
    assert answer["words"] == [{"text": "a", "tokens": 1}, {"text": "sandwich", "tokens": 1}]


# ---- what the model does not read


def cut(text: str) -> list[Token]:
    """The model reads three words."""
    return [Token(word, at if at < 3 else UNREAD, True, word.encode()) for at, word in enumerate(text.split())]


def test_what_the_model_does_not_read_is_found_and_weighs_nothing():
    targets = PromptTargets(parse_targets("dog, elf, cat"), [[[(5, "a red cat dog")]]], cut)
    dog, elf, _ = targets.targets
    assert (targets.missing(), targets.unread()) == ([dog, elf], [dog])
    assert targets.found(0, 0)[2].begins_within(None)
    targets = PromptTargets(parse_targets("dog"), [[[(5, "a red cat dog")]]], cut)
    assert not targets.found(0, 0)[0].begins_within(77)
    assert torch.equal(targets.weights(0, 0, 0, 77), torch.zeros(77, 1))
    assert not targets.present(0).any()
    assert not targets.present(0, context=77).any()


def test_the_report_says_what_is_not_read():
    cat, dog = match([[(5, "a red cat dog")]], "cat, dog", [], cut, None)["targets"]
    assert (cat["found"], cat["unread"]) == (True, False)
    assert (dog["found"], dog["unread"], dog["occurrences"]) == (True, True, [])


def test_a_prompt_without_chunks_has_one():
    def long(text: str) -> list[Token]:
        return [Token(word, at, True, word.encode()) for at, word in enumerate(text.split())]

    (target,) = match([[(5, "a " * 100 + "cat")]], "cat", [], long, None)["targets"]
    assert target["occurrences"] == [{"part": 0, "tokens": [{"chunk": 0, "index": 100}]}]


def test_what_the_model_does_not_read_is_no_candidate():
    found = candidates([[(5, "a red cat dog")]], cut)
    assert [target.text for target in found] == ["cat"]
