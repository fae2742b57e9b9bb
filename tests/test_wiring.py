"""Every setting is wired to something: it changes the picture, or a part that only a WebUI has
reads it."""

from __future__ import annotations

import ast
from dataclasses import Field, fields, replace
from pathlib import Path

import pytest
import tiny_checkpoints
import torch

from asyndm_lib.hosts.standalone.embedded import Embedded, Request
from asyndm_lib.hosts.standalone.ldm_checkpoint import load
from asyndm_lib.settings.settings import EVERYWHERE, Settings

PACKAGE = Path(__file__).parent.parent / "asyndm_lib"
REQUEST = Request("a cat and a basketball", "", (1,), "Euler", "automatic", 6, 4.5, 64, 64)
BASE = Settings(targets="cat")
GENERIC = {"settings", "cli.py", "demo"}
"""What handles all settings alike, and so reads none."""


def others(field: Field) -> list[object]:
    """Values of a setting other than that of :data:`BASE`."""
    meta, now = field.metadata, getattr(BASE, field.name)
    if isinstance(now, bool):
        values = [not now]
    elif isinstance(now, float):
        values = [meta["minimum"], meta["maximum"]]
    else:
        values = list(meta.get("choices", ["basketball"]))
    return [value for value in values if value != now]


@pytest.fixture(scope="module")
def host(tmp_path_factory) -> Embedded:
    folder = tmp_path_factory.mktemp("tiny")
    tiny_checkpoints.make(folder, "sd1")
    return Embedded(load(folder / "tiny-sd1.safetensors", None, torch.device("cpu")))


@pytest.fixture(scope="module")
def picture(host) -> torch.Tensor:
    return host.sample(REQUEST, BASE)


PAINTED = torch.zeros(64, 64, dtype=torch.bool)
PAINTED[:, 32:] = True
OF_A_MASK = ("with_words",)
"""The settings that a mask by hand has alone."""


@pytest.mark.parametrize("field", EVERYWHERE, ids=lambda field: field.name)
def test_a_setting_changes_the_picture(field, host, picture):
    painted = PAINTED if field.name in OF_A_MASK else None
    before = picture if painted is None else host.sample(REQUEST, BASE, painted=painted)
    assert torch.equal(host.sample(REQUEST, BASE, painted=painted), before)
    for value in others(field):
        changed = replace(BASE, **{field.name: value})
        assert not torch.equal(host.sample(REQUEST, changed, painted=painted), before), value


def reads(name: str) -> list[str]:
    """The files that read an attribute of that name, but for those that handle all settings
    alike."""
    return [
        str(file.relative_to(PACKAGE))
        for file in PACKAGE.rglob("*.py")
        if file.relative_to(PACKAGE).parts[0] not in GENERIC
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr == name and isinstance(node.ctx, ast.Load)
    ]


@pytest.mark.parametrize("field", [f for f in fields(Settings) if f not in EVERYWHERE], ids=lambda f: f.name)
def test_a_setting_of_the_webuis_is_read_there(field):
    assert reads(field.name) or changes_the_second_pass(field)


def changes_the_second_pass(field: Field) -> bool:
    """Whether some value of the setting changes anything else in what holds in hires fix's second
    pass."""

    def second(settings: Settings) -> Settings | None:
        held = settings.of_second_pass()
        return held and replace(held, **{field.name: field.default})

    passes = (BASE, replace(BASE, second_pass="own concavity"))
    return any(second(replace(one, **{field.name: value})) != second(one) for one in passes for value in others(field))


def test_what_nobody_reads_is_seen_as_such():
    assert reads("no_such_setting") == []
