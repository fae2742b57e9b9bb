"""The grammar of the target list."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyndm_lib.errors import AsynDMError, TargetError
from asyndm_lib.prompt.target_list import (
    MAX_LENGTH,
    MAX_TARGETS,
    Target,
    _entries,
    _target,
    named_targets,
    parse_targets,
    replace_tags,
    tagged,
)

TABLE = json.loads((Path(__file__).parent / "target_grammar.json").read_text(encoding="utf-8"))
"""The cases that the page's tests read too."""

READABLE, UNREADABLE = ([case for case in TABLE["lists"] if kind in case] for kind in ("targets", "error"))
CHARACTERS = "()[]\":#,.\n 019+-e_xé🐱\\\t\x00²٣"


def named(cases):
    return [pytest.param(case, id=repr(case["list" if "list" in case else "prompt"])[:60]) for case in cases]


@pytest.mark.parametrize("case", named(READABLE))
def test_a_readable_list_gives_its_targets(case):
    assert parse_targets(case["list"]) == tuple(Target(*target) for target in case["targets"])


@pytest.mark.parametrize("case", named(UNREADABLE))
def test_an_unreadable_entry_is_named_in_one_line(case):
    text = case["list"]
    with pytest.raises(TargetError, match=case["error"]) as caught:
        parse_targets(f"bird, {text}, fish" if text.count("(") == text.count(")") else text)
    message = str(caught.value)
    assert repr(text.strip())[:80] in message
    assert "\n" not in message


def test_the_longest_list_is_read():
    assert parse_targets("a" * MAX_LENGTH) == (Target("a" * MAX_LENGTH),)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("cat:", "target 'cat:': '' after the colon is not a number from 0 to 1"),
        ("cat: 2", "target 'cat: 2': the concavity 2 is not from 0 to 1"),
        ("#2", "target '#2' names no word"),
        ("cat#0", "target 'cat#0': occurrences count from #1"),
    ],
)
def test_the_messages(entry, message):
    with pytest.raises(TargetError) as caught:
        parse_targets(entry)
    assert str(caught.value) == message


@pytest.mark.parametrize("entry", ["cat:" + "x" * 3000, "x" * 3000 + ":2", "(" + "y\n" * 1500 + "):9"])
def test_the_message_stays_short(entry):
    with pytest.raises(TargetError) as caught:
        parse_targets(entry)
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


def test_so_many_targets_are_read_and_no_more():
    assert len(parse_targets(", ".join(f"word{n}" for n in range(MAX_TARGETS)))) == MAX_TARGETS
    with pytest.raises(TargetError, match=f"{MAX_TARGETS + 1} targets .* at most {MAX_TARGETS}"):
        parse_targets(", ".join(f"word{n}" for n in range(MAX_TARGETS + 1)))


@pytest.mark.parametrize("text", ["a" * (MAX_LENGTH + 1), "cat:0.5, " * 10_000, ":" + " " * 5_000_000 + "("])
def test_a_list_that_is_too_long_is_refused_at_once(text):
    begun = time.perf_counter()
    with pytest.raises(TargetError, match=f"{len(text)} characters long; at most {MAX_LENGTH}"):
        parse_targets(text)
    assert time.perf_counter() - begun < 0.1


@pytest.mark.parametrize(
    "unit",
    [
        ("", "a", ""),
        ("", ":", ""),
        (":", " ", "("),
        ("(a:", " ", "x)"),
        ("", ":" + " " * 60, "("),
        ("#", " ", "x"),
        ("#", "1", ""),
        ("cat:", "1", ""),
        ("(a:", "1", "x)"),
        ("", "(", ""),
        ("", "()", ""),
        ("", "([)]", ""),
        ("(a", ":1", ")"),
        ("", "[,", ""),
        ("", '"', ""),
        ("", '",', ""),
        ("", '" ', "x"),
        ('"', " ", '"x'),
        ("", ",\n", '"'),
    ],
    ids=repr,
)
def test_the_longest_list_takes_no_time(unit):
    _timed(unit[0] + unit[1] * ((MAX_LENGTH - 10) // len(unit[1])) + unit[2])


@pytest.mark.parametrize(("opening", "closing"), [("(", ")"), ("(", ":1)"), ("[(", ")]")])
def test_the_deepest_brackets_take_no_time(opening, closing):
    depth = (MAX_LENGTH - 3) // len(opening + closing)
    assert _timed(opening * depth + "cat" + closing * depth) == (Target("cat"),)


@pytest.mark.parametrize(("opening", "closing"), [("(", ")"), ("(", ":1)"), ("[(", ")]"), ("( ", "#1)"), ('("', '")')])
def test_brackets_are_read_in_time_by_their_number(opening, closing):
    def seconds(depth: int) -> float:
        entry = opening * depth + "cat" + closing * depth
        begun = time.perf_counter()
        _entries(entry)
        with contextlib.suppress(TargetError):
            _target(entry)
        return time.perf_counter() - begun

    once = min(seconds(5_000) for _ in range(3))
    assert min(seconds(40_000) for _ in range(2)) < 24 * once  # 8 times as many; the square is 64


def _timed(text: str) -> tuple[Target, ...] | None:
    begun = time.perf_counter()
    try:
        return parse_targets(text)
    except TargetError as error:
        assert len(str(error)) < 300  # noqa: PT017
        return None
    finally:
        assert time.perf_counter() - begun < 3


@given(st.text() | st.text(CHARACTERS) | st.from_regex(r"\(*cat[:#, ()\[\]0-9.]{0,12}"))
@settings(max_examples=600, deadline=1000)
def test_any_text_is_read_or_refused_with_a_target_error(text):
    try:
        targets = parse_targets(text)
    except AsynDMError as error:
        assert type(error) is TargetError  # noqa: PT017
        return
    assert len(targets) == len(set(targets)) <= MAX_TARGETS
    for target in targets:
        assert target.text == " ".join(target.text.split()) != ""
        assert target.occurrence is None or target.occurrence >= 1
        assert target.concavity is None or 0 <= target.concavity <= 1


@given(
    st.from_regex(r"[a-z🐱]{1,9}( [a-z]{1,9}){0,2}", fullmatch=True),
    st.none() | st.integers(1, 99),
    st.none() | st.integers(0, 100).map(lambda k: k / 100),
    st.sampled_from(["{}", "({})", "(({}))", "[{}]", "({}:1.25)", " {} "]),
)
def test_what_is_written_is_what_is_read(text, occurrence, concavity, emphasis):
    entry = emphasis.format(text)
    entry += "" if occurrence is None else f"#{occurrence}"
    entry += "" if concavity is None else f":{concavity}"
    assert parse_targets(entry) == (Target(text, occurrence, concavity),)


def test_a_target_is_shown_as_it_is_written():
    assert [str(t) for t in parse_targets("red cat:0.5, dog#2")] == ["red cat", "dog#2"]


@pytest.mark.parametrize("case", named(TABLE["prompts"]))
def test_tags_in_a_prompt(case):
    if "error" in case:
        with pytest.raises(TargetError, match=case["error"]):
            named_targets("", case["prompt"])
    else:
        assert named_targets("", case["prompt"]) == tuple(Target(*target) for target in case["targets"])


def test_a_list_and_the_tags_are_read_together_each_by_itself():
    prompt = "<asyn:dog>, b), c <asyn:cat, (a>"
    assert named_targets("cat, (bird", prompt) == tuple(map(Target, ["cat", "(bird", "dog", "(a"]))
    with pytest.raises(TargetError, match="70 targets"):
        named_targets("cat, " * 35, "<asyn:cat>" * 35)
    with pytest.raises(TargetError, match=f"{MAX_LENGTH + 5} characters"):
        named_targets("c" * MAX_LENGTH, "<asyn:cat>")


def test_other_text_in_place_of_tags():
    prompt = "a <asyn:dog#2> <lora:x:1> <asyn:cat> <asyn:bird"
    assert tagged(prompt) == ["dog#2", "cat"]
    assert replace_tags(prompt, str.upper) == "a <ASYN:DOG#2> <lora:x:1> <ASYN:CAT> <asyn:bird"
    assert replace_tags(prompt, str) == prompt


@pytest.mark.parametrize("end", ["", ">", "<asyn:>"])
@pytest.mark.parametrize("piece", ["<asyn:", "<asyn", "<", "<a:", "<asyn:cat>", "<asyn:>", ">"])
def test_tags_of_a_long_prompt_are_found_at_once(piece, end):
    prompt = piece * 100_000 + end
    begun = time.perf_counter()
    tagged(prompt)
    assert replace_tags(prompt, str) == prompt
    assert time.perf_counter() - begun < 2
