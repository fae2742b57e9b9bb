"""Prompt sets, what a picture shows of its prompt, statistics, results and tables."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from scipy import stats

from asyndm_lib import cli
from asyndm_lib.demo.training import scenes
from asyndm_lib.demo.training.concepts import CONCEPTS, UNSEEN
from asyndm_lib.errors import AsynDMError
from asyndm_lib.evaluation import counter, counter_training, lead, localisation, results, statistics, table
from asyndm_lib.evaluation.counter import NAMES, Found
from asyndm_lib.evaluation.methods import (
    CONCAVE,
    DECIDING,
    DM,
    FRESH,
    LAGGED,
    MAIN,
    PAPER,
    PEERS_ALONE,
    PEERS_TOGETHER,
    TRAINED,
    USERS,
    VARIANTS,
)
from asyndm_lib.evaluation.plan import DECIDING_ROUNDS, FULL, SEEDS, TWO_LEVELS
from asyndm_lib.evaluation.prompt_sets import PLAIN, SCENERY, sets
from asyndm_lib.evaluation.prompts import Prompt
from asyndm_lib.evaluation.results import Result
from asyndm_lib.evaluation.runner import jobs
from asyndm_lib.evaluation.subjects import EMBEDDED, FLOW, on_two_levels
from asyndm_lib.prompt.target_list import parse_targets

PAGE = Path(__file__).parents[1] / "docs" / "EVALUATION.md"
ALL = sets(PLAIN)
IN_SCENERIES = sets(SCENERY)


# Prompts


def test_the_sets_are_large_enough_and_always_the_same():
    assert [one.name for one in ALL] == ["two objects", "counts", "colours", "three or more"]
    assert all(len(one.tuning) == len(one.report) == 50 for one in ALL + IN_SCENERIES)
    assert sets(PLAIN) == ALL
    for one in ALL + IN_SCENERIES:
        # Nothing is both tuned on and reported.
        assert len({prompt.text for prompt in one.tuning + one.report}) == 100


def test_every_target_stands_in_its_prompt_and_every_thing_can_be_counted():
    for prompt in (prompt for one in ALL + IN_SCENERIES for prompt in one.tuning + one.report):
        assert all(name in NAMES for name, _ in prompt.things)
        assert len(parse_targets(prompt.targets)) == len(prompt.things)
        for target in parse_targets(prompt.targets):
            assert f" {target.text}," in f" {prompt.text},".replace(" and", ",").replace(" on", ",") or (
                target.text in prompt.text
            )


def test_what_the_sets_ask_for():
    by_name = {one.name: one.report for one in ALL}
    assert all(sum(count for _, count in prompt.things) == 2 and prompt.place for prompt in by_name["two objects"])
    assert all(max(count for _, count in prompt.things) > 1 for prompt in by_name["counts"])
    colours = {"red", "yellow", "green", "blue", "purple"}
    assert all({name.split()[0] for name, _ in prompt.things} <= colours for prompt in by_name["colours"])
    assert all(sum(count for _, count in prompt.things) > 2 for prompt in by_name["three or more"])
    shown = {tuple(sorted(parts, reverse=True)) for parts, _ in scenes.PARTITIONS}
    never = [p for p in by_name["three or more"] if tuple(sorted((c for _, c in p.things), reverse=True)) not in shown]
    assert len(never) >= 20  # combinations that training did not show


def found(*things):
    return [Found(name, x, y) for name, x, y in things]


TWO = Prompt("a cat left of two dogs", "cat, dogs", (("cat", 1), ("dog", 2)))


@pytest.mark.parametrize(
    ("things", "exact", "right", "extra"),
    [
        ([("cat", 0, 0), ("dog", 90, 0), ("dog", 0, 90)], True, 3, 0),
        ([("cat", 0, 0), ("dog", 90, 0)], False, 2, 0),
        ([("cat", 0, 0), ("dog", 90, 0), ("dog", 0, 90), ("cat", 90, 90)], False, 3, 1),
        ([("cat", 0, 0), ("cat", 90, 0), ("dog", 0, 90)], False, 2, 1),
        ([], False, 0, 0),
    ],
)
def test_exact_means_all_and_nothing_else(things, exact, right, extra):
    shown = TWO.shown(found(*things))
    assert (shown.exact, shown.right, shown.extra) == (exact, right, extra)


@pytest.mark.parametrize(
    ("place", "second", "right"),
    [
        *[("left of", (100, 50), True), ("left of", (60, 50), False), ("left of", (0, 50), False)],
        *[("right of", (0, 50), True), ("above", (50, 100), True), ("above", (50, 0), False)],
        *[("below", (50, 0), True), ("below", (100, 50), False)],
    ],
)
def test_a_place_must_hold_clearly(place, second, right):
    prompt = Prompt("", "", (("cat", 1), ("dog", 1)), place)
    assert prompt.shown(found(("cat", 50, 50), ("dog", *second))).exact == right
    assert not prompt.shown(found(("cat", 50, 50))).exact


def test_what_decides_has_fair_rivals_and_6400_pictures_a_line():
    by_name = {method.name: method for method in DECIDING}
    assert len(by_name) == len(DECIDING) == 19
    way = USERS[0]
    assert by_name["DM, CFG +20 %"].way(way) == replace(way, cfg=way.cfg * 1.2)
    assert by_name["DM, CFG +40 %"].way(way).cfg == pytest.approx(9.8)
    assert by_name["DM, 20 % more steps"].way(way) == replace(way, steps=24)
    assert by_name[FRESH.name].way(way) == way
    by_level = [method for method in DECIDING if method.settings.normalisation == "by level"]
    assert {(m.settings.concavity, m.settings.mask_timing) for m in by_level if m.control is None} == {
        (k, timing) for k in (0.3, 0.5, 0.7) for timing in ("lagged", "fresh")
    }
    assert {m.control.mask for m in by_level if m.control is not None} == {"inverted", "random"}
    seeds = {}
    for round_ in DECIDING_ROUNDS:
        for way in round_.ways:
            seeds.setdefault(way.name, []).extend(range(round_.first, round_.last))
    assert list(seeds) == [USERS[0].name, USERS[2].name, PAPER.name]
    assert all(sorted(own) == list(range(32)) for own in seeds.values())
    assert {round_.half for round_ in DECIDING_ROUNDS} == {"report"}


def test_a_model_of_two_levels_has_wrong_masks_as_it_normalises_and_the_same_rounds():
    plain = [method for method in TRAINED if method.settings.normalisation == "as the model"]
    assert {m.control.mask for m in plain if m.control is not None} == {"inverted", "random"}
    assert {"DM", "DM, 20 % more steps", CONCAVE.name, LAGGED.name, FRESH.name} <= {method.name for method in plain}
    assert {m.name for m in TRAINED if m not in plain} == {f"{LAGGED.name}, by level", f"{FRESH.name}, by level"}
    assert [(r.ways, r.half, r.first, r.last) for r in TWO_LEVELS] == [
        (r.ways, r.half, r.first, r.last) for r in DECIDING_ROUNDS
    ]
    assert all(round_.methods == TRAINED for round_ in TWO_LEVELS)


AUTOENCODER = "first_stage_model.encoder.conv_in.weight"


def test_a_model_of_two_levels_is_that_of_sceneries_where_its_counter_lies_beside_it(tmp_path):
    with pytest.raises(AsynDMError, match=r"emoji.safetensors is missing: .*README"):
        on_two_levels(tmp_path)
    (tmp_path / "emoji.safetensors").touch()
    with pytest.raises(AsynDMError, match=r"emoji.safetensors is no checkpoint of the stage export"):
        on_two_levels(tmp_path)
    with safe_open(EMBEDDED.model, "pt") as tensors:
        autoencoder = {AUTOENCODER: tensors.get_tensor(AUTOENCODER)}
    save_file({AUTOENCODER: autoencoder[AUTOENCODER] + 0.01}, tmp_path / "emoji.safetensors")
    with pytest.raises(AsynDMError, match=r"counter.safetensors is missing"):  # whose the pictures need
        on_two_levels(tmp_path)
    save_file(autoencoder, tmp_path / "emoji.safetensors")
    embedded = on_two_levels(tmp_path)
    assert (embedded.model, embedded.counter) == (tmp_path / "emoji.safetensors", EMBEDDED.counter)
    assert (embedded.kinds, embedded.results) == (PLAIN, "two-levels-results.json")
    (tmp_path / "counter.safetensors").touch()
    with pytest.raises(AsynDMError, match=r"counter.json is missing"):
        on_two_levels(tmp_path)
    accuracy = tmp_path / "counter.json"
    for odd in ("", "[]", "{}", '{"exact": "all", "scenes": 9}'):
        accuracy.write_text(odd)
        with pytest.raises(AsynDMError, match=r"counter.json does not tell how the counter did"):
            on_two_levels(tmp_path)
    accuracy.write_text('{"exact": 0.5, "scenes": 600}')
    scenery = on_two_levels(tmp_path)
    assert scenery.about([])["the counter names"] == "50.0% of 600 new rendered scenes fully"
    assert (scenery.model, scenery.counter) == (embedded.model, tmp_path / "counter.safetensors")
    assert (scenery.kinds, scenery.results) == (SCENERY, "two-levels-scenery.json")
    assert embedded.rounds == scenery.rounds == TWO_LEVELS


def test_a_counter_that_is_none_is_said_in_a_line(tmp_path):
    path = tmp_path / "counter.safetensors"
    path.write_bytes(b"junk")
    with pytest.raises(AsynDMError, match=r"counter.safetensors holds no weights of the counter"):
        counter.load(torch.device("cpu"), path)
    save_file({"other": torch.zeros(1)}, path)
    with pytest.raises(AsynDMError, match=r"counter.safetensors holds no weights of the counter"):
        counter.load(torch.device("cpu"), path)


def test_what_decides_is_for_unets(tmp_path, capsys):
    assert cli.main(["evaluate", "--model", "transformer", "--deciding", "--folder", str(tmp_path)]) == 2
    assert "a transformer has no normalisation by level" in capsys.readouterr().err


def test_no_two_pictures_of_a_method_share_their_noise():
    for sets_ in (ALL, IN_SCENERIES):
        every = [job.noise for half in ("tuning", "report") for job in jobs(sets_, half, range(SEEDS))]
        assert len(set(every)) == len(every) == 2 * 4 * 50 * SEEDS


# The plan


def test_the_plan_compares_what_the_issue_names():
    names = {method.name for method in MAIN}
    for wanted in (
        "DM",
        "DM_concave",
        "k = 0.3",
        "k = 0.5",
        "k = 0.7",
        "k = 1",
        "lagged",
        "fresh",
        "inverted",
        "random",
    ):
        assert any(wanted in name for name in names)
    variants = " ".join(method.name for method in VARIANTS)
    assert all(word in variants for word in ("piecewise linear", "exponential", "threshold", "static"))
    assert [method.peer for method in PEERS_ALONE] == ["Z-Sampling", "SEG", "S-CFG", "CFG++", "Attend-and-Excite"]
    assert all(method.settings == FRESH.settings for method in PEERS_TOGETHER)
    assert (PAPER.sampler, PAPER.steps, PAPER.cfg, PAPER.eta) == ("DDIM", 50, 5.0, 1.0)
    assert {(way.sampler, way.steps, way.cfg) for way in USERS} == {
        (sampler, steps, 7.0) for sampler in ("DPM++ 2M", "Euler a") for steps in (20, 30)
    }
    seeds = {seed for one in FULL for seed in range(one.first, one.last) if DM in one.methods and one.half == "report"}
    assert seeds == set(range(16))


# The counter


def test_centres_are_the_surest_of_those_around():
    confidence = torch.zeros(1, len(NAMES), 32, 32)
    cat, dog = NAMES.index("cat"), NAMES.index("dog")
    confidence[0, cat, 5, 6] = 0.9
    confidence[0, cat, 5, 7] = 0.8
    confidence[0, dog, 6, 6] = 0.7
    confidence[0, dog, 20, 10] = 0.5
    confidence[0, dog, 2, 30] = counter.SURE - 0.01
    assert counter.centres(confidence) == [[Found("cat", 48, 40), Found("dog", 80, 160)]]


def test_training_asks_for_one_at_each_centre():
    layout = counter_training.draw_layout(40, np.random.default_rng(0))
    centre = counter_training.centres(layout)
    count = (layout.concept >= 0).sum(axis=1)
    assert set(count) == set(range(counter_training.MOST + 1))
    target = counter_training.wanted(centre)
    for row in range(40):
        objects = [(NAMES[int(k)], x, y) for k, x, y in centre[row].tolist() if k >= 0]
        assert counter_training.names(layout, row) == sorted(name for name, _, _ in objects)
        for name, x, y in objects:
            assert target[row, NAMES.index(name), round(y / 8), round(x / 8)] == 1
    assert ((target == 1).sum(dim=(1, 2, 3)) == torch.from_numpy(count)).all()


def test_a_picture_and_its_centres_move_together():
    picture = torch.full((8, 3, 256, 256), -1.0)
    picture[:, :, 96:104, 160:168] = 1.0  # centred at (164, 100)
    centre = torch.tensor([[[0.0, 164.0, 100.0]]]).expand(8, -1, -1)
    moved, to = counter_training.moved(picture, centre, torch.Generator().manual_seed(1))
    weight = (moved[:, 0] + 1) / 2
    axis = torch.arange(256) + 0.5
    total = weight.sum(dim=(1, 2))
    assert torch.allclose((weight.sum(1) * axis).sum(1) / total, to[:, 0, 1], atol=0.3)
    assert torch.allclose((weight.sum(2) * axis).sum(1) / total, to[:, 0, 2], atol=0.3)
    assert (to[:, 0, 1:] - centre[:, 0, 1:]).abs().max() > 5


def test_the_loss_is_least_where_the_network_is_right():
    target = torch.zeros(1, 2, 4, 4)
    target[0, 0, 1, 1] = 1
    right = torch.where(target == 1, 8.0, -8.0)
    losses = [counter_training.loss(logits, target) for logits in (right, -right, torch.zeros_like(right))]
    assert losses[0] < 1e-3 < losses[2] < losses[1]


def test_the_committed_weights_fit():
    network = counter.load(torch.device("cpu"))
    assert counter.WEIGHTS.stat().st_size < 2_000_000
    assert network.head.out_channels == len(NAMES) == len(CONCEPTS) + len(UNSEEN)
    # A plain grey picture shows nothing.
    assert counter.find(network, torch.zeros(1, 3, 256, 256)) == [[]]


# Statistics


@settings(deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=2, max_size=30))
def test_the_interval_is_students(values):
    estimate = statistics.mean(values)
    assert estimate.mean == pytest.approx(np.mean(values), abs=1e-9)
    error = stats.sem(values)
    if error > 1e-6:
        low, _ = stats.t.interval(0.95, len(values) - 1, np.mean(values), error)
        assert estimate.mean - estimate.half == pytest.approx(low, abs=1e-6)


def test_differences_are_paired_by_prompt():
    own, other, pairs = [16, 8, 2], [12, 8, 1], [16, 16, 4]
    estimate = statistics.paired(own, other, pairs)
    differences = [4 / 16, 0, 1 / 4]
    assert estimate == statistics.mean(differences)
    assert statistics.mean([0.5]).half == math.inf


def test_the_interval_holds_the_truth_in_95_percent():
    random = np.random.default_rng(0)
    inside = 0
    for _ in range(400):
        prompts = random.beta(2, 2, 50)  # the pictures of a prompt resemble each other
        own, other = (random.binomial(16, prompts) for _ in range(2))
        estimate = statistics.paired(own, other, [16] * 50)
        inside += abs(estimate.mean) <= estimate.half
    assert 0.92 <= inside / 400 <= 0.98


# Results and tables

RESULT = Result(PAPER.name, "report", DM.name, "counts", [4, 4], [2, 4], [2, 4], 10, 1, 12, 0, 0)
BETTER = replace(RESULT, method=FRESH.name, exact=[4, 4], gained=2)


def test_results_are_read_as_they_were_written(tmp_path):
    path = tmp_path / "results.json"
    results.save(path, [RESULT, BETTER], {"model": "m"})
    assert results.load(path) == ([RESULT, BETTER], {"model": "m"})
    path.write_text('{"results": [{"way": 1}]}')
    with pytest.raises(AsynDMError, match="not a results file"):
        results.load(path)


def test_the_table_says_shares_and_differences():
    lines = table.markdown([RESULT, BETTER], {"model": "m"}).splitlines()
    assert lines[0] == "model: m."
    assert "| DM | 75.0 % | 75.0 % |  | 8 |" in lines
    # The differences of the two prompts are 50 and 0 points: t(0.975, 1) · 25 = 317.7
    assert f"| {FRESH.name} | +25.0 ± 317.7 | +25.0 ± 317.7 | 2 / 0 | 8 |" in lines


def test_a_prompt_on_several_samplers_is_one_prompt():
    # A stop left the second prompt out.
    more = replace(BETTER, way="Euler a 20", pairs=[4], exact=[1], ordinary=[3])
    other = replace(BETTER, set="colours", pairs=[2], exact=[2], ordinary=[1])
    estimate = results.across_ways([BETTER, more, other])
    assert estimate == statistics.mean([((4 + 1) - (2 + 3)) / 8, 0, 1 / 2])


def test_a_page_without_marks_is_refused(tmp_path):
    page = tmp_path / "EVALUATION.md"
    page.write_text("# nothing\n")
    with pytest.raises(AsynDMError, match="has no lines"):
        table.insert(page, "x", "results")
    begin, end = table.marks("results")
    page.write_text(f"a\n{begin}\nold\n{end}\nb\n")
    table.insert(page, "new", "results")
    assert page.read_text() == f"a\n{begin}\nnew\n{end}\nb\n"
    with pytest.raises(AsynDMError, match="<!-- other: begin -->"):
        table.insert(page, "new", "other")


@pytest.mark.parametrize(
    "file",
    [
        *[EMBEDDED.results, "scenery.json", FLOW.results, "deciding-results.json", "deciding-scenery.json"],
        *["two-levels-results.json", "two-levels-scenery.json"],
        *["present-layers-results.json", "present-layers-scenery.json"],
    ],
)
def test_the_pages_tables_are_those_of_the_results_files(capsys, file):
    path = results.FILE.with_name(file)
    assert cli.main(["evaluate", "--table", "--results", str(path)]) == 0
    printed = capsys.readouterr().out.strip()
    begin, end = table.marks(path.stem)
    inside = PAGE.read_text(encoding="utf-8").split(begin)[1].split(end)[0].strip()
    assert inside == printed


@pytest.mark.parametrize("program", [lead, localisation], ids=["lead", "localisation"])
def test_the_pages_other_tables_are_those_of_their_results(capsys, program):
    program.main([])
    begin, end = table.marks(program.FILE.stem)
    inside = PAGE.read_text(encoding="utf-8").split(begin)[1].split(end)[0].strip()
    assert inside == capsys.readouterr().out.strip()


@pytest.mark.parametrize("file", [EMBEDDED.results, "scenery.json"])
def test_the_sets_left_the_ordinary_picture_room_to_fail(file):
    kept, _ = results.load(results.FILE.with_name(file))
    for name in {result.set for result in kept}:
        ordinary = [r for r in kept if (r.way, r.half, r.method, r.set) == (PAPER.name, "report", DM.name, name)]
        assert len(ordinary) == 1
        estimate = results.share(ordinary)
        assert estimate.mean + estimate.half >= 0.4
        assert estimate.mean - estimate.half <= 0.8
