"""Where the target words stand in a prompt, as the page and the API are told."""

from __future__ import annotations

import json

from asyndm_lib.prompt.report import match
from asyndm_lib.prompt.token_search import Token


def tokenize(text):
    """Three letters a token; the second chunk begins with its own start token, after 75."""
    tokens = []
    for word in text.replace("(", " ").replace(")", " ").replace(",", " ").split():
        pieces = [word[at : at + 3] for at in range(0, len(word), 3)]
        for n, piece in enumerate(pieces):
            at = len(tokens)
            tokens.append(Token(piece, at // 75 * 77 + at % 75 + 1, n == len(pieces) - 1))
    return tokens


def plain(*texts):
    return [[(0, text)] for text in texts]


def places(target):
    return [
        (where["part"], *((token["chunk"], token["index"]) for token in where["tokens"]))
        for where in target["occurrences"]
    ]


def test_every_occurrence_with_its_chunk_and_index():
    far = "cat " + "a " * 80 + "cat"
    answer = match(plain(far), "cat, dog", [], tokenize)
    cat, dog = answer["targets"]
    assert (cat["text"], cat["found"], places(cat)) == ("cat", True, [(0, (0, 1)), (0, (1, 7))])
    assert (dog["text"], dog["found"], dog["occurrences"]) == ("dog", False, [])


def test_a_word_of_several_tokens():
    (target,) = match(plain("a basketball"), "basketball", [], tokenize)["targets"]
    assert places(target) == [(0, (0, 2), (0, 3), (0, 4), (0, 5))]


def test_and_parts_are_counted_from_0():
    (target,) = match(plain("a cat", "the big cat"), "cat", [], tokenize)["targets"]
    assert places(target) == [(0, (0, 2)), (1, (0, 3))]


def test_an_occurrence_and_a_concavity():
    first, second = match(plain("cat cat"), "cat#2:0.25, cat", [], tokenize)["targets"]
    assert (first["occurrence"], first["concavity"], places(first)) == (2, 0.25, [(0, (0, 2))])
    assert (second["occurrence"], second["concavity"], len(places(second))) == (None, None, 2)


def test_all_that_a_prompt_is_over_the_steps_counts():
    parts = [[(3, "a cat"), (6, "a big dog and cat")]]
    cat, dog = match(parts, "cat, dog", [], tokenize)["targets"]
    assert places(cat) == [(0, (0, 2)), (0, (0, 5))]
    assert places(dog) == [(0, (0, 3))]


def test_tags_are_targets_too_and_told_apart():
    answer = match(plain("a cat dog"), "cat", ["cat", "dog:0.5"], tokenize)
    assert [(t["text"], t["tagged"]) for t in answer["targets"]] == [("cat", False), ("dog", True)]
    assert answer["tags"] == "cat, dog:0.5"


def test_the_words_of_the_prompt_and_their_tokens():
    parts = [[(3, "a (basketball:1.3), [dog]"), (6, "a cat. BREAK e.g. cat")]]
    assert match(parts, "", [], tokenize)["words"] == [
        {"text": "a", "tokens": 1},
        {"text": "basketball", "tokens": 4},
        {"text": "dog", "tokens": 1},
        {"text": "cat", "tokens": 1},
        {"text": "e.g", "tokens": 1},
    ]


def test_a_list_that_cannot_be_read_is_an_error_beside_the_words():
    for listed, tags in (("cat:2", []), ("", ["cat:2"])):
        answer = match(plain("a cat"), listed, tags, tokenize)
        assert answer["targets"] == []
        assert "2 is not from 0 to 1" in answer["error"]
        assert len(answer["words"]) == 2


def test_nothing_named_and_nothing_typed():
    answer = match(plain(""), "", [], tokenize)
    assert answer == {"targets": [], "words": [], "tags": "", "error": None}
    json.dumps(answer)
