"""Target words in prompts: which tokens, in which AND part, at which step."""

from __future__ import annotations

import pytest
import torch
from stand_ins import words

from asyndm_lib.prompt.prompt_targets import PromptTargets
from asyndm_lib.prompt.target_list import parse_targets
from asyndm_lib.prompt.token_search import Found, Spelling, Token, find

PIECES = {"skateboard": ["skate", "board"], "zebras": ["ze", "bra", "s"], "cats": ["cat", "s"]}
"""Words that a tokenizer takes apart. A piece has the same key wherever it stands."""


def tokenize(text: str) -> list[Token]:
    """The tokens in chunks of 6 rows, as CLIP's have 77: a start token, 4 tokens, an end token."""
    tokens = []
    for word in text.replace(",", " , ").split():
        pieces = PIECES.get(word, [word])
        for n, piece in enumerate(pieces):
            at = len(tokens)
            tokens.append(Token(piece, at // 4 * 6 + at % 4 + 1, n == len(pieces) - 1))
    return tokens


def positions(prompt: str | list[str], target: str) -> list[tuple[int, tuple[int, ...]]]:
    parts = [prompt] if isinstance(prompt, str) else prompt
    [parsed] = parse_targets(target)
    return list(find([Spelling(tokenize(p)) for p in parts], Spelling(tokenize(parsed.text)), parsed).occurrences)


@pytest.mark.parametrize(
    ("prompt", "target", "expected"),
    [
        ("a cat", "cat", [(0, (2,))]),
        ("cat", "cat", [(0, (1,))]),
        ("a red cat", "red cat", [(0, (2, 3))]),
        ("a skateboard", "skateboard", [(0, (2, 3))]),
        ("a b c skateboard", "skateboard", [(0, (4, 7))]),  # over the end of a chunk
        ("zebras", "zebras", [(0, (1, 2, 3))]),
        # Words begin and end where the prompt's do.
        ("a skateboard", "board", []),
        ("a skateboard", "skate", []),
        ("a skate board", "board", [(0, (3,))]),
        ("skateboard board", "board", [(0, (3,))]),
        ("skate board", "skateboard", [(0, (1, 2))]),
        ("zebras", "bra", []),
        ("two cats", "cat", []),
        ("two cats cat", "cat", [(0, (4,))]),
        ("red skateboard", "red skate", []),
        # Several.
        ("dog dog", "dog", [(0, (1,)), (0, (2,))]),
        ("dog cat dog", "dog#1", [(0, (1,))]),
        ("dog cat dog", "dog#2", [(0, (3,))]),
        ("dog cat dog", "dog#3", []),
        ("dog dog dog", "dog dog", [(0, (1, 2))]),
        ("dog dog dog dog", "dog dog#2", [(0, (3, 4))]),
        # None.
        ("a cat", "dog", []),
        ("", "dog", []),
        ("cat", "cat dog", []),
        ("red , cat", "red cat", []),
    ],
)
def test_a_target_is_found_at_whole_words(prompt, target, expected):
    assert positions(prompt, target) == expected


def test_occurrences_count_through_the_and_parts():
    parts = ["a dog", "dog b dog", "c"]
    assert positions(parts, "dog") == [(0, (2,)), (1, (1,)), (1, (3,))]
    assert positions(parts, "dog#1") == [(0, (2,))]
    assert positions(parts, "dog#2") == [(1, (1,))]
    assert positions(parts, "dog#3") == [(1, (3,))]
    assert positions(parts, "dog#4") == []


def test_a_word_does_not_reach_from_one_and_part_into_the_next():
    assert positions(["a skate", "board"], "skateboard") == []
    assert positions(["a red", "cat"], "red cat") == []


def test_keys_may_be_names_of_textual_inversions():
    prompt = [Token(7, 1, True), Token("style", 2, False), Token("style", 3, True)]
    words = [Token("style", 1, False), Token("style", 2, True)]
    assert find([Spelling(prompt)], Spelling(words), parse_targets("x")[0]).occurrences == ((0, (2, 3)),)


def test_a_target_without_tokens_is_nowhere():
    assert find([Spelling(words("a cat"))], Spelling([]), parse_targets("x")[0]).occurrences == ()


def test_positions_are_those_of_one_part_together():
    found = Found(((0, (2, 3)), (1, (1,)), (0, (7,))))
    assert found.positions(0) == (2, 3, 7)
    assert found.positions(1) == (1,)
    assert found.positions(2) == ()


def prompts(targets: str, *images: list) -> PromptTargets:
    """Images as lists of AND parts. A part is a text or a schedule of ``(last step, text)``."""
    scheduled = [[[(10**6, part)] if isinstance(part, str) else part for part in image] for image in images]
    return PromptTargets(parse_targets(targets), scheduled, tokenize)


def test_weights_are_a_mean_over_the_tokens_of_all_occurrences():
    here = prompts("cat, dog, skateboard, bird", ["cat dog dog", "a skateboard dog"])
    first, second = here.weights(0, 0, 0, 12), here.weights(0, 1, 0, 12)
    assert first.shape == second.shape == (12, 4)
    assert sorted(map(tuple, first.nonzero().tolist())) == [(1, 0), (2, 1), (3, 1)]
    third = pytest.approx(1 / 3)
    assert (first[1, 0], first[2, 1], first[3, 1]) == (1, third, third)
    assert sorted(map(tuple, second.nonzero().tolist())) == [(2, 2), (3, 2), (4, 1)]
    assert (second[2, 2], second[3, 2], second[4, 1]) == (0.5, 0.5, third)


@pytest.mark.parametrize("context", [12, 18])
def test_weights_of_a_present_target_sum_to_1_over_the_parts_and_of_an_absent_one_to_0(context):
    here = prompts("cat, dog, dog#2, skateboard, bird", ["cat dog dog", "a skateboard dog", "dog"], ["dog"])
    for image, parts in ((0, 3), (1, 1)):
        total = sum(here.weights(image, part, 0, context) for part in range(parts)).sum(dim=0)
        torch.testing.assert_close(total, here.present(0)[image].float())
    assert here.present(0).tolist() == [[True, True, True, True, False], [False, True, False, False, False]]


def test_weights_are_each_images_own_although_they_are_kept():
    here = prompts("cat", ["cat a"], ["a cat"], ["cat a"])
    seen = [here.weights(image, 0, 0, 6) for image in (0, 1, 2, 0)]
    assert [w.argmax().item() for w in seen] == [1, 2, 1, 1]
    assert here.weights(1, 0, 0, 12).shape == (12, 1)


def test_prompt_editing_holds_until_its_step():
    here = prompts("cat, dog", [[(2, "a cat"), (5, "dog"), (10**6, "bird")]], ["cat"])
    present = [here.present(step)[0].tolist() for step in range(8)]
    assert present == [[True, False]] * 3 + [[False, True]] * 3 + [[False, False]] * 2
    assert all(here.present(step)[1].tolist() == [True, False] for step in range(8))
    assert here.weights(0, 0, 2, 6)[:, 0].argmax() == 2
    assert here.weights(0, 0, 3, 6)[:, 1].argmax() == 1
    assert here.weights(0, 0, 3, 6)[:, 0].sum() == 0


def test_past_the_last_entry_the_first_one_holds_as_in_the_webui():
    here = prompts("cat, dog", [[(2, "cat"), (5, "dog")]])
    assert here.present(5).tolist() == [[False, True]]
    assert here.present(6).tolist() == [[True, False]]


def test_editing_one_and_part_moves_the_occurrences_of_the_others():
    here = prompts("dog#2", [[(1, "dog"), (9, "cat")], "dog a dog"])
    assert here.found(0, 1)[0].occurrences == ((1, (1,)),)
    assert here.found(0, 2)[0].occurrences == ((1, (3,)),)


def test_ever_present_looks_at_every_step():
    two_parts = [[(3, "dog"), (9, "a")], [(6, "dog"), (9, "a")]]
    here = prompts("cat, dog, bird, dog#2", [[(2, "a"), (5, "cat"), (9, "a")]], two_parts)
    assert here.ever_present().tolist() == [[True, False, False, False], [False, True, False, True]]
    for step in range(12):
        assert (here.present(step) <= here.ever_present()).all()


def test_missing_are_the_targets_that_no_image_holds_at_any_step():
    here = prompts("cat, dog, bird, cat#2", [[(2, "a"), (5, "cat")]], ["a dog", "b"])
    assert [str(target) for target in here.missing()] == ["bird", "cat#2"]
    assert prompts("cat", ["cat"]).missing() == []


def test_without_targets_there_is_nothing_to_miss():
    here = prompts("", ["cat"], ["dog"])
    assert here.present(0).shape == (2, 0)
    assert here.missing() == []
    assert here.weights(0, 0, 0, 6).shape == (6, 0)


def test_each_text_is_tokenized_once():
    seen = []

    def counting(text: str) -> list[Token]:
        seen.append(text)
        return tokenize(text)

    here = PromptTargets(parse_targets("cat"), [[[(2, "a cat"), (9, "dog")]], [[(9, "a cat")]]], counting)
    for step in range(5):
        for image in range(2):
            here.weights(image, 0, step, 6)
    assert sorted(seen) == ["a cat", "cat", "dog"]
