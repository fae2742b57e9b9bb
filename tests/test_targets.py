"""The grammar of the target list."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyndm_lib.errors import AsynDMError, TargetError
from asyndm_lib.prompt.target_list import MAX_LENGTH, MAX_TARGETS, Target, named_targets, parse_targets, tagged

GOOD = {
    "": [],
    " ": [],
    ",": [],
    " , ,\n, ": [],
    "cat": [Target("cat")],
    "  cat  ": [Target("cat")],
    "cat, red heart:0.5, dog#2": [Target("cat"), Target("red heart", None, 0.5), Target("dog", 2)],
    "cat,": [Target("cat")],
    "cat,,dog,": [Target("cat"), Target("dog")],
    "cat\ndog": [Target("cat"), Target("dog")],
    "cat\r\ndog": [Target("cat"), Target("dog")],
    "red   heart": [Target("red heart")],
    "cat, cat, cat:0.5": [Target("cat"), Target("cat", None, 0.5)],
    "cat:0": [Target("cat", None, 0.0)],
    "cat:1": [Target("cat", None, 1.0)],
    "cat : 0.5": [Target("cat", None, 0.5)],
    "cat:.5": [Target("cat", None, 0.5)],
    "dog#2:0.7": [Target("dog", 2, 0.7)],
    "dog #2": [Target("dog", 2)],
    "dog# 2": [Target("dog", 2)],
    "dog#10": [Target("dog", 10)],
    "#1 fan": [Target("#1 fan")],
    "(cat:1.3)": [Target("cat")],
    "(cat)": [Target("cat")],
    "((cat))": [Target("cat")],
    "[cat]": [Target("cat")],
    "[(cat:1.1)]": [Target("cat")],
    "((cat:1.2):1.3)": [Target("cat")],
    "(cat:1.3):0.5": [Target("cat", None, 0.5)],
    "(cat:1.3)#2": [Target("cat", 2)],
    "(cat:1.3)#2:0.5": [Target("cat", 2, 0.5)],
    "(red cat, dog:1.2), bird": [Target("red cat, dog"), Target("bird")],
    "(cat, dog)": [Target("cat, dog")],
    "[a, (b, c)], d": [Target("a, (b, c)"), Target("d")],
    # A bracket without its partner is an ordinary character.
    "(cat": [Target("(cat")],
    "cat)": [Target("cat)")],
    "(cat, dog": [Target("(cat"), Target("dog")],
    "a), (b, c": [Target("a)"), Target("(b"), Target("c")],
    "a], [b, c": [Target("a]"), Target("[b"), Target("c")],
    "(a, b), (c, d": [Target("a, b"), Target("(c"), Target("d")],
    ":) face": [Target(":) face")],
    "🐱": [Target("🐱")],
    "🐱‍👤:0.5, 猫#2": [Target("🐱‍👤", None, 0.5), Target("猫", 2)],
    "(2024)": [Target("2024")],
    "(red) cat, (red) (cat:1.2)": [Target("(red) cat"), Target("(red) (cat:1.2)")],
    "a" * MAX_LENGTH: [Target("a" * MAX_LENGTH)],
}
BAD = {
    "cat:2": "not from 0 to 1",
    "cat:-0.1": "not from 0 to 1",
    "cat:1.0001": "not from 0 to 1",
    "cat:": "not a number",
    "cat: ": "not a number",
    "cat:nan": "not from 0 to 1",
    "cat:inf": "not from 0 to 1",
    "cat:half": "not a number",
    "cat:0.5:0.5x": "not a number",
    ":0.5": "names no word",
    "#2": "names no word",
    "#2:0.5": "names no word",
    "()": "names no word",
    "(:1.3)": "names no word",
    "dog#0": "count from #1",
    "dog#00": "count from #1",
    "(cat:1.3": "not from 0 to 1",
}
CHARACTERS = "()[]:#,.\n 019+-e_xé🐱\\\t\x00²٣"


@pytest.mark.parametrize("text", GOOD)
def test_a_readable_list_gives_its_targets(text):
    assert parse_targets(text) == tuple(GOOD[text])


@pytest.mark.parametrize("text", BAD)
def test_an_unreadable_entry_is_named_in_one_line(text):
    with pytest.raises(TargetError, match=BAD[text]) as caught:
        parse_targets(f"bird, {text}, fish" if text.count("(") == text.count(")") else text)
    message = str(caught.value)
    assert repr(text.strip()) in message
    assert "\n" not in message


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
    ],
    ids=repr,
)
def test_the_longest_list_takes_no_time(unit):
    _timed(unit[0] + unit[1] * ((MAX_LENGTH - 10) // len(unit[1])) + unit[2])


@pytest.mark.parametrize(("opening", "closing"), [("(", ")"), ("(", ":1)"), ("[(", ")]")])
def test_the_deepest_brackets_take_no_time(opening, closing):
    depth = (MAX_LENGTH - 3) // len(opening + closing)
    assert _timed(opening * depth + "cat" + closing * depth) == (Target("cat"),)


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


@pytest.mark.parametrize(
    ("prompt", "found"),
    [
        ("a cat", ()),
        ("a <asyn:cat>cat and <asyn:red heart:0.5>", (Target("cat"), Target("red heart", None, 0.5))),
        ("<lora:x:1> a dog <asyn:dog#2> <asyn:>", (Target("dog", 2),)),
        ("<asyn:dog\N{FULLWIDTH NUMBER SIGN}2>", (Target("dog", 2),)),
        ("<asyn:cat, dog>", (Target("cat"), Target("dog"))),
        ("asyn:cat> <ASYN:cat> < asyn:cat>", ()),
    ],
)
def test_tags_in_a_prompt(prompt, found):
    assert parse_targets(tagged(prompt)) == found


def test_a_list_and_a_prompts_tags_make_targets_together():
    prompt = "a cat and a <asyn:red heart:0.5>"
    assert named_targets("cat", prompt) == (Target("cat"), Target("red heart", concavity=0.5))
    assert named_targets("", prompt) == (Target("red heart", concavity=0.5),)
    assert named_targets("cat", "a cat") == (Target("cat"),)
    assert len(named_targets("z" * MAX_LENGTH, "a cat")) == 1, "what joins them counts among the characters"
