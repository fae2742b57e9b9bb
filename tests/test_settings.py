"""The settings model: what it takes, and how it refuses the rest."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError, fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyndm_lib.clock.curves import CURVES
from asyndm_lib.errors import AsynDMError, SettingsError, TargetError
from asyndm_lib.masks.target_masks import TIMINGS
from asyndm_lib.settings.settings import EVERYWHERE, Settings

FIELDS = {f.name: f for f in fields(Settings)}
NUMBERS = [name for name, f in FIELDS.items() if isinstance(f.default, float)]
FLAGS = [name for name, f in FIELDS.items() if isinstance(f.default, bool)]
TEXTS = [name for name, f in FIELDS.items() if isinstance(f.default, str)]


def test_there_are_settings_of_every_kind():
    assert (len(NUMBERS), len(FLAGS), len(TEXTS)) == (3, 2, 8)


def test_defaults_are_valid_and_are_what_an_empty_mapping_gives():
    assert Settings.from_mapping({}) == Settings()
    for name, f in FIELDS.items():
        assert Settings.from_mapping({name: f.default}) == Settings()


def test_defaults_are_the_papers():
    here = Settings()
    assert (here.targets, here.concavity, here.curve, here.mask_timing, here.threshold, here.whole_picture) == (
        "",
        0.5,
        "quadratic",
        "lagged",
        1.0,
        False,
    )


def test_every_setting_says_what_it_is():
    for f in FIELDS.values():
        assert f.metadata["label"]
        assert f.metadata["help"]
        if isinstance(f.default, float):
            assert f.metadata["minimum"] <= f.default <= f.metadata["maximum"]
            assert f.metadata["step"] > 0
        if "choices" in f.metadata:
            assert f.default in f.metadata["choices"]


def test_the_choices_are_all_there_are():
    assert FIELDS["curve"].metadata["choices"] == CURVES == ("quadratic", "piecewise linear", "exponential")
    assert FIELDS["mask_timing"].metadata["choices"] == tuple(TIMINGS) == ("lagged", "fresh", "static")
    assert FIELDS["second_pass"].metadata["choices"] == ("same", "off", "own concavity")
    assert FIELDS["normalisation"].metadata["choices"] == ("as the model", "by level")
    assert FIELDS["region"].metadata["choices"] == ("words", "painted", "inpaint mask")
    assert FIELDS["with_words"].metadata["choices"] == ("union", "intersection")


def test_the_second_pass():
    here = Settings(targets="cat", concavity=0.7, curve="exponential", second_concavity=0.2)
    assert here.of_second_pass() == here
    assert replace(here, second_pass="off").of_second_pass() is None
    own = replace(here, second_pass="own concavity")
    assert own.of_second_pass() == replace(own, concavity=0.2)


def test_settings_that_only_a_webui_has():
    names = ["second_pass", "second_concavity", "show_masks", "region", "mask"]
    assert [f.name for f in FIELDS.values() if f not in EVERYWHERE] == names


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("concavity", 0),
        ("concavity", 1),
        ("concavity", 0.3),
        ("concavity", np.float64(0.3)),
        ("threshold", 4),
        ("threshold", 0.0),
        ("whole_picture", True),
        ("targets", "cat, dog#2:0.7"),
        *(("curve", curve) for curve in CURVES),
        *(("mask_timing", timing) for timing in TIMINGS),
    ],
)
def test_a_valid_value_is_kept(name, value):
    here = Settings.from_mapping({name: value})
    assert getattr(here, name) == value
    assert isinstance(getattr(here, name), type(FIELDS[name].default))


@pytest.mark.parametrize("key", ["Concavity", "k", "", "targets ", 3, None, "x" * 1000])
def test_an_unknown_setting_is_named_beside_those_there_are(key):
    with pytest.raises(SettingsError, match=r"no setting .*concavity, curve") as caught:
        Settings.from_mapping({"concavity": 0.5, key: 1})
    assert repr(key)[:80] in str(caught.value)
    assert len(str(caught.value)) < 300


def refused(name: str, value: object, why: str) -> None:
    with pytest.raises(SettingsError, match=why) as caught:
        Settings.from_mapping({name: value})
    message = str(caught.value)
    assert message.startswith(FIELDS[name].metadata["label"])
    assert len(message) < 300
    assert "\n" not in message


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [True, False, "0.5", None, [0.5], {}, 0.5j, (1,)], ids=repr)
def test_a_number_must_be_a_number(name, value):
    refused(name, value, "must be a number")


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("size", [4.01, 1e300, math.inf, math.nan, 10**400], ids=["4.01", "1e300", "inf", "nan", "big"])
def test_a_number_must_be_in_its_range(name, sign, size):
    refused(name, sign * size, f"must be from 0 to {FIELDS[name].metadata['maximum']:g}, not")


def test_just_outside_its_range_is_outside():
    refused("concavity", 1.0000001, "from 0 to 1")
    refused("concavity", -1e-9, "from 0 to 1")
    refused("threshold", 4.0000001, "from 0 to 4")


@pytest.mark.parametrize("name", FLAGS)
@pytest.mark.parametrize("value", [0, 1, "true", None, [], 1.0], ids=repr)
def test_a_flag_must_be_true_or_false(name, value):
    refused(name, value, "must be true or false")


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("value", [0, 1.5, None, True, ["quadratic"], {"a": 1}, b"quadratic"], ids=repr)
def test_a_text_must_be_text(name, value):
    refused(name, value, "must be text")


@pytest.mark.parametrize("name", ["curve", "mask_timing"])
@pytest.mark.parametrize("value", ["", "Quadratic", "lagged ", "x" * 1000, "a\nb"], ids=lambda value: repr(value[:9]))
def test_a_choice_must_be_one_of_the_choices(name, value):
    refused(name, value, f"must be one of {', '.join(FIELDS[name].metadata['choices'])}")


@pytest.mark.parametrize("text", ["cat:2", ":0.5", "dog#0"])
def test_targets_must_be_readable(text):
    with pytest.raises(TargetError):
        Settings(targets=text)


@given(
    st.dictionaries(
        st.sampled_from([*FIELDS, "other"]),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers()) | st.binary(),
        max_size=3,
    )
)
@settings(max_examples=200, deadline=None)
def test_any_mapping_gives_settings_or_an_error_for_the_person(values):
    try:
        here = Settings.from_mapping(values)
    except AsynDMError as error:
        assert str(error)  # noqa: PT017
        return
    for name, value in values.items():
        assert getattr(here, name) == value


def test_settings_do_not_change():
    with pytest.raises(FrozenInstanceError):
        Settings().concavity = 0.1
