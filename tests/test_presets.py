"""Presets and the JSON schema: both are the settings model in another form."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest

from asyndm_lib.prompt.target_list import MAX_LENGTH
from asyndm_lib.settings.presets import HELP, PRESETS, label
from asyndm_lib.settings.schema import schema
from asyndm_lib.settings.settings import Settings


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_valid_and_names_what_the_others_name(name):
    Settings.from_mapping(PRESETS[name])
    assert PRESETS[name].keys() == PRESETS["paper"].keys()
    assert HELP[name]


def test_the_papers_preset():
    assert PRESETS["paper"] == {
        "concavity": 0.5,
        "curve": "quadratic",
        "mask_timing": "lagged",
        "threshold": 1.0,
        "whole_picture": False,
    }


def test_one_preset_slows_the_whole_picture_and_its_button_says_so():
    assert [name for name, preset in PRESETS.items() if preset["whole_picture"]] == ["whole_picture"]
    assert [label(name) for name in PRESETS] == ["Paper", "Gentle", "Strong", "Whole picture"]


def test_the_schema_names_every_setting_with_its_limits():
    properties = schema()["properties"]
    assert list(properties) == ["enabled", *(f.name for f in fields(Settings))]
    assert properties["targets"]["maxLength"] == MAX_LENGTH
    assert properties["concavity"] == {
        "type": "number",
        "title": "Concavity",
        "description": Settings.__dataclass_fields__["concavity"].metadata["help"],
        "default": 0.5,
        "minimum": 0.0,
        "maximum": 1.0,
    }
    assert properties["curve"]["enum"] == ["quadratic", "piecewise linear", "exponential"]
    assert all(p["description"] and p["title"] for p in properties.values())
    assert schema()["additionalProperties"] is False
    assert json.loads(json.dumps(schema())) == schema()


def test_the_schemas_defaults_are_the_settings():
    defaults = {name: p["default"] for name, p in schema()["properties"].items() if name != "enabled"}
    assert Settings.from_mapping(defaults) == Settings()
