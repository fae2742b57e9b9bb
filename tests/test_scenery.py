"""Scenes in sceneries: the drawings, the layouts, the captions, and the evaluation's prompts of
them."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from asyndm_lib import cli
from asyndm_lib.demo import MODEL
from asyndm_lib.demo.training import scenery, scenes
from asyndm_lib.demo.training.concepts import CONCEPTS
from asyndm_lib.demo.training.scenery import EDGE, SCENERIES, VARIANTS
from asyndm_lib.demo.training.sprites import SIZES
from asyndm_lib.demo.training.vocabulary import WordEncoder
from asyndm_lib.evaluation.prompt_sets import SCENERY, sets


@pytest.fixture(scope="module")
def backdrops():
    return scenery.backdrops()


@pytest.fixture(scope="module")
def painter(backdrops):
    """A painter whose sprites are white squares."""
    atlas = np.zeros((len(CONCEPTS), len(SIZES), SIZES[-1], SIZES[-1], 4), np.uint8)
    for index, size in enumerate(SIZES):
        atlas[:, index, :size, :size] = 255
    return scenes.Painter(atlas, "cpu", backdrops)


def test_every_drawing_differs_and_sceneries_more_so(backdrops):
    assert backdrops.shape == (len(SCENERIES) * VARIANTS, EDGE, EDGE, 3)
    assert backdrops.dtype == np.uint8
    assert len({drawing.tobytes() for drawing in backdrops}) == len(backdrops)
    small = backdrops.reshape(len(SCENERIES), VARIANTS, 16, 16, 16, 16, 3).mean((3, 5))
    own = np.abs(small - small.mean(1, keepdims=True)).mean()
    others = np.abs(small.mean(1)[:, None] - small.mean(1)[None]).mean()
    assert others > 3 * own
    assert (scenery.backdrops() == backdrops).all()


def test_sceneries_say_what_belongs_there():
    for one in SCENERIES:
        assert [CONCEPTS[index].name for index in one.concepts] == list(one.things)
        assert len(set(one.things)) == len(one.things) >= scenes.SLOTS
    phrases = [phrase for one in SCENERIES for phrase in one.phrases]
    assert len(set(phrases)) == len(phrases)


def test_most_scenes_show_what_belongs_there():
    layout = scenes.draw_in_sceneries(600, np.random.default_rng(0))
    belong = []
    for row in range(600):
        things = {CONCEPTS[index].name for index in layout.concept[row] if index >= 0}
        assert ((layout.concept[row] >= 0) == (layout.group[row] >= 0)).all()
        assert len(things) == layout.group[row].max() + 1  # groups of one thing each, all different
        belong.append(things <= set(SCENERIES[layout.backdrop[row] // VARIANTS].things))
    assert scenes.BELONGING - 0.06 < np.mean(belong) < scenes.BELONGING + 0.1
    assert set(layout.backdrop // VARIANTS) == set(range(len(SCENERIES)))


def test_captions_end_with_the_scenery():
    rng = np.random.default_rng(1)
    both = scenes.joined(scenes.draw_layout(20, rng), scenes.draw_in_sceneries(20, rng))
    captions = scenes.captions(both, WordEncoder(MODEL.parent / "tokenizer"), random.Random(0))
    phrases = [phrase for one in SCENERIES for phrase in one.phrases]
    for row, caption in enumerate(captions):
        named = [phrase for phrase in phrases if phrase in caption.text]
        own = SCENERIES[both.backdrop[row] // VARIANTS].phrases if row >= 20 else ()
        assert bool(named) == (row >= 20)
        assert all(phrase in own for phrase in named)
        assert "background" not in caption.text or row < 20


def test_things_are_painted_before_their_backdrop(painter, backdrops):
    rng = np.random.default_rng(2)
    both = scenes.joined(scenes.draw_layout(4, rng, soft=0.0), scenes.draw_in_sceneries(12, rng))
    pictures, alphas = painter.paint(both)
    free = alphas.sum(1) == 0
    for row in range(16):
        if row < 4:
            expected = torch.from_numpy(both.colour[row, 0])[:, None, None].float().expand(3, EDGE, EDGE)
        else:
            expected = torch.from_numpy(backdrops[both.backdrop[row]]).permute(2, 0, 1).float()
        assert torch.allclose((pictures[row] + 1)[:, free[row]] * 127.5, expected[:, free[row]], atol=1e-3)
        covered = alphas[row].sum(0) == 1
        assert covered.any()
        assert torch.allclose(pictures[row][:, covered], torch.tensor(1.0))


def test_prompts_name_things_of_their_scenery_or_none_of_them():
    of = {one.name: one.report + one.tuning for one in sets(SCENERY)}
    for name, belonging in (("at home", True), ("counts there", True), ("out of place", False)):
        for prompt in of[name]:
            (own,) = [one for one in SCENERIES if prompt.text.endswith(one.phrases[0])]
            assert {thing in own.things for thing, _ in prompt.things} == {belonging}
    for prompt in of["colours there"]:
        assert any(prompt.text.endswith(one.phrases[0]) for one in SCENERIES)


def test_a_folder_without_the_model_is_named(tmp_path, capsys):
    assert cli.main(["evaluate", "--scenery", str(tmp_path), "--folder", str(tmp_path / "out")]) != 0
    error = capsys.readouterr().err
    assert "emoji.safetensors is missing" in error
    assert "Traceback" not in error
