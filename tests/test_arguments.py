"""The script's arguments, from the page (a list), the API (a list or an object) and the X/Y/Z plot
(axes)."""

from __future__ import annotations

from dataclasses import astuple, fields
from types import SimpleNamespace

import pytest

from asyndm_lib.errors import AsynDMError
from asyndm_lib.interface import arguments, infotext
from asyndm_lib.interface.job import Job
from asyndm_lib.settings.settings import Settings

NOTHING = SimpleNamespace()


def cell(**axes):
    return SimpleNamespace(asyndm=Job(axes=axes))


def asked(*args):
    return {"alwayson_scripts": {"asynDM": {"args": [*args]}}}


def test_a_list():
    assert arguments.of(NOTHING, [True, "cat", 0.7]) == Settings(targets="cat", concavity=0.7)
    assert arguments.of(NOTHING, [False, 7, None]) is None
    assert arguments.of(NOTHING, []) is None


def test_the_order_of_the_list_is_what_saved_requests_rely_on():
    """A new setting goes to the end, and to the end of this list."""
    assert arguments.NAMES == (
        "enabled",
        "targets",
        "concavity",
        "curve",
        "mask_timing",
        "threshold",
        "whole_picture",
        "second_pass",
        "second_concavity",
        "show_masks",
        "normalisation",
        "region",
        "with_words",
        "mask",
    )
    values = (True, "cat", 0.7, "exponential", "fresh", 1.5, True, "own concavity", 0.2, True, "by level")
    values += ("painted", "intersection", "iVBORw0KGgo=")
    assert astuple(arguments.of(NOTHING, values)) == values[1:]


def test_an_object_switches_on_and_leaves_the_rest_at_the_models_defaults():
    named = {"targets": "cat", "concavity": 0.7}
    for rest in ([], ["dog", 0.1, "exponential"]):  # the host fills up with the controls' values
        assert arguments.of(NOTHING, [named, *rest]) == Settings(targets="cat", concavity=0.7)
    assert arguments.of(NOTHING, [{}]) == Settings()
    assert arguments.of(NOTHING, [{**named, "enabled": False}]) is None


def test_axes_are_laid_over_either():
    expected = Settings(targets="cat", concavity=0.7)
    for args in ([True, "cat"], [False, "cat"], [{"targets": "cat"}], [{"targets": "cat", "enabled": False}]):
        assert arguments.of(cell(concavity=0.7), args) == expected
        assert arguments.of(cell(concavity=0.7, enabled=False), args) is None
        assert arguments.of(cell(enabled=False), args) is None


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["on"], "'on'"),
        ([{"enabled": 1}], "true or false, not 1"),
        ([{"concavty": 1}], "no setting 'concavty'"),
        ([{"concavity": 2}], "from 0 to 1, not 2"),
        ([{"targets": "cat:2"}], "not from 0 to 1"),
    ],
)
def test_what_is_wrong_is_named(args, said):
    with pytest.raises(AsynDMError, match=said):
        arguments.of(NOTHING, args)


@pytest.mark.parametrize(
    "body",
    [
        *(None, 7, [], {}, {"alwayson_scripts": None}, {"alwayson_scripts": []}, {"alwayson_scripts": {}}),
        {"alwayson_scripts": {"ControlNet": {"args": [{"x": 1}]}}},
        {"alwayson_scripts": {"AsynDM": {}}},
        asked(),
        asked(True, "cat", "wrong, but a list"),
        asked({}),
        asked({"targets": "cat", "enabled": False}),
        asked(True, "🐱", 2**63 - 1, -(2**63), 1e300, None),
        {"alwayson_scripts": {"ControlNet": {"args": ["\ud83d", 2**64]}}},
    ],
)
def test_requests_that_may_pass(body):
    arguments.check(body)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (asked({"concavty": 1}), "no setting 'concavty'; it has targets, concavity"),
        (asked({"concavity": "1"}), "must be a number"),
        (asked({"concavity": 1.5}), "from 0 to 1"),
        (asked({"curve": "cubic"}), "one of quadratic"),
        (asked({"enabled": 0}), "true or false"),
        (asked({"enabled": False, "concavity": 7}), "from 0 to 1"),
        (asked({"targets": "cat"}, True), "nothing after it: True"),
        (asked({"targets": "cat \ud83d"}), r"a text holds half a character: 'cat \\ud83d'"),
        (asked({"enabled": False, "targets": "\udc00"}), "half a character"),
        (asked(True, "\ud83d"), "half a character"),
        (asked(True, "cat", [{"x": [{"\udfff": 1}]}]), "half a character"),
        (asked(True, "cat", 2**63), "longer than 64 bits: 9223372036854775808"),
        (asked(False, [[{"x": -(10**400)}]]), "longer than 64 bits: -1000"),
        (asked(True, "cat", float("nan")), "not finite: nan"),
        (asked(True, "cat", [-float("inf")]), "not finite: -inf"),
        ({"alwayson_scripts": {"AsynDM": {"args": [True], "x": "\ud83d"}}}, "half a character"),
        ({"alwayson_scripts": {"AsynDM": {"args": {"targets": "cat"}}}}, "takes its settings as"),
        ({"alwayson_scripts": {"AsynDM": {"targets": "cat"}}}, "takes its settings as"),
        ({"alwayson_scripts": {"ASYNDM": [{"targets": "cat"}]}}, "takes its settings as"),
        ({"alwayson_scripts": {"AsynDM": None}}, "takes its settings as"),
    ],
)
def test_requests_that_are_refused(body, said):
    with pytest.raises(AsynDMError, match=said):
        arguments.check(body)


OLD = {
    "AsynDM targets": "cat, dog:0.9",
    "AsynDM concavity": "0.35",
    "AsynDM curve": "piecewise linear",
    "AsynDM mask timing": "static",
    "AsynDM mask threshold": "1.25",
    "AsynDM whole picture": "True",
}
"""An infotext as version 0.1.0 wrote it."""


def restored(params):
    """The values that the controls are set to. Those that change no picture stay as they are."""
    values = {name: read(params) for name, read in infotext.READERS.items()}
    return {name: value for name, value in values.items() if value is not None}


def test_an_infotext_of_version_0_1_0():
    assert infotext.was_on(OLD)
    expected = Settings(
        targets="cat, dog:0.9",
        concavity=0.35,
        curve="piecewise linear",
        mask_timing="static",
        threshold=1.25,
        whole_picture=True,
    )
    assert Settings(**restored(OLD)) == expected
    assert infotext.write(expected) == {k: type(infotext.write(expected)[k])(v) for k, v in OLD.items()}


def test_what_is_not_written_is_the_default_and_the_sign_alone_is_enough():
    assert Settings(**restored({"AsynDM": "on"})) == Settings()
    assert infotext.was_on({"AsynDM": "on"})
    assert infotext.write(Settings()) == {"AsynDM": "on"}


def test_an_infotext_without_it_switches_off_and_leaves_the_rest():
    assert not infotext.was_on({"Steps": "20"})
    assert restored({"Steps": "20"}) == {}


@pytest.mark.parametrize("field", fields(Settings), ids=lambda f: f.name)
def test_an_impossible_value_of_an_infotext_gives_the_default(field):
    for wrong in ("cubic:7", "nan", "1e999", "-3"):
        Settings(**restored({infotext.key(field): wrong}))


def test_an_infotext_names_the_words_chosen_for_its_own_picture():
    chosen = infotext.OfPictures(["cat", "dog", None, "tree"])
    every = ["a", "b", "c", "d"]
    p = SimpleNamespace(all_prompts=every, prompts=["c", "d"], iteration=1, batch_size=2)
    for of_batch in (p.prompts, ["c", "d"]):  # reForge has others made, without comments
        assert [chosen(p, i, of_batch) for i in range(2)] == [None, "tree"]
    assert [chosen(p, i, every) for i in range(5)] == ["cat", "dog", None, "tree", None]
    assert chosen(p, 0, p.prompts, use_main_prompt=True) == "cat"


def test_the_depth_of_a_request_is_no_matter():
    deep = "\ud83d"
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(AsynDMError, match="half a character"):
        arguments.check(asked(True, deep))
