"""The rows of a prompt's tokens, as the text engines of Forge's relatives make them."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import pytest

from asyndm_lib.prompt.target_list import Target
from asyndm_lib.prompt.token_search import UNREAD, Spelling, find

NAMES = [
    "<s>", "Ġa", "a", "Ġred", "red", "Ġcat", "cat", "Ġdog", "dog", "<t>", "end",
    "Ġ", "do", "Ġdo", "BREAK", "Ġca", "ca", "d",
]


def parse(line: str, emphasis: str) -> list[list]:
    """``|`` stands for a change of emphasis."""
    if emphasis == "None":
        return [[line, 1.0]]
    return [["BREAK", -1] if part == "BREAK" else [part, 1.0] for part in line.split("|")]


@pytest.fixture
def engine(monkeypatch):
    """``engine(**fields)``: an engine whose words are the names above."""
    backend, modules = ModuleType("backend"), ModuleType("modules")
    parsing = ModuleType("backend.text_processing.parsing")
    parsing.parse_prompt_attention = parse
    text_processing = ModuleType("backend.text_processing")
    text_processing.parsing = parsing
    shared = ModuleType("modules.shared")
    shared.opts = None
    for name, module in {
        "backend": backend,
        "backend.text_processing": text_processing,
        "backend.text_processing.parsing": parsing,
        "modules": modules,
        "modules.shared": shared,
    }.items():
        monkeypatch.setitem(sys.modules, name, module)
    for name in ("extra_networks", "prompt_parser", "script_callbacks", "sd_models"):
        setattr(modules, name, ModuleType(name))
        monkeypatch.setitem(sys.modules, f"modules.{name}", getattr(modules, name))
    modules.shared = shared
    untouched = importlib.import_module("asyndm_lib.hosts.common.untouched")
    monkeypatch.setattr(untouched, "untouched", lambda module: module)
    for name in ("asyndm_lib.hosts.common.text", "asyndm_lib.hosts.forge_family.text_engines"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    module = importlib.import_module("asyndm_lib.hosts.forge_family.text_engines")
    monkeypatch.setitem(sys.modules, "asyndm_lib.hosts.forge_family.text_engines", module)

    def make(template: str = "{}", **fields):
        def tokenize(texts):
            return [_ids(template.format(text)) for text in texts]

        from asyndm_lib.prompt.vocabulary import byte_text

        fields = {"emphasis": "Original", **fields}
        return module.Engine(tokenize, lambda ids: [NAMES[key] for key in ids], byte_text, **fields)

    return make


def _ids(text: str) -> list[int]:
    """Words with the blank before them, the longest first."""
    ids, text = [], text.replace(" ", "Ġ")
    while text:
        name = max((name for name in NAMES if text.startswith(name)), key=len)
        ids.append(NAMES.index(name))
        text = text[len(name) :]
    return ids


def rows(engine, prompt: str, word: str) -> list[tuple[int, ...]]:
    prompts, words = (Spelling(list(engine.tokens(text))) for text in (prompt, word))
    return [positions for _, positions in find([prompts], words, Target(word)).occurrences]


def test_segments_come_one_after_the_other(engine):
    assert rows(engine(), "a cat|cat", "cat") == [(1,), (2,)]


def test_the_first_token_of_all_and_the_end_of_each_segment(engine):
    made = engine(template="{}end", first=1, after=1)
    assert rows(made, "a cat|dog", "cat") == [(2,)]
    assert rows(made, "a cat|dog", "dog") == [(4,)]


def test_a_template_stands_around_every_segment(engine):
    made = engine(template="<t><t>{}<t>", before=2, after=1)
    assert rows(made, "a cat|dog", "cat") == [(3,)]
    assert rows(made, "a cat|dog", "dog") == [(7,)]
    # Qwen-Image leaves out what comes before the prompt.
    cut = engine(template="<t><t>{}<t>", before=2, after=1, first=-2)
    assert rows(cut, "a cat|dog", "cat") == [(1,)]
    assert rows(cut, "a cat|dog", "dog") == [(5,)]


def test_what_the_engine_writes_before_the_prompt_holds_no_words_of_it(engine):
    made = engine(first=1, head=lambda line: "a cat dog")
    assert rows(made, " a cat", "cat") == [(5,)]
    assert rows(made, " a cat", "dog") == []


def test_behind_break_nothing_is_read(engine):
    made = engine(stops=True)
    assert rows(made, "a cat|BREAK|dog", "cat") == [(1,)]
    assert rows(made, "a cat|BREAK|dog", "dog") == [(UNREAD,)]


def test_a_last_letter_that_is_left_out_makes_no_other_word(engine):
    made = engine(unread_end=1)
    assert rows(made, "a dog", "dog") == [(1, UNREAD)]
    assert rows(made, "a dog", "do") == []


def test_brackets_are_text_where_the_host_takes_no_emphasis(engine):
    plain = engine(emphasis="None")
    (a, cat) = plain.tokens("a cat")
    assert (a.position, cat.position) == (0, 1)
