"""A run of several descents, such as Restart's: each has a clock of its own, and the masks go on
from one to the next."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from authors_grid import AuthorsGrid
from stand_ins import LEVELS, WatchedRun, make_run
from test_run import CAT_AND_DOG, WHERE, latent, masks_of, model, related_at, sigma_maps, target_maps
from torch import Tensor

from asyndm_lib.run.step import REMEMBERED
from asyndm_lib.samplers.table import SAMPLERS

ROOMS = [(999, 400, 5), (700, 300, 4), (700, 300, 4), (500, 0, 6)]
"""The timesteps at the beginning and at the end of each descent, and its evaluations."""
SHORT = [(999, 900, 1), (950, 500, 3), (600, 500, 1), (550, 500, 1), (550, 0, 4)]
CURVES = ["quadratic", "piecewise linear", "exponential"]


def ways_down(rooms: list[tuple[int, int, int]], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """The sigmas of each descent. The last one ends at 0."""
    ways = [LEVELS.t_to_sigma(torch.linspace(high, low, n + 1, dtype=torch.float64)) for high, low, n in rooms]
    ways[-1] = torch.cat([ways[-1][:-1], torch.zeros(1)])
    return [way.to(dtype) for way in ways]


def restarted(rooms: list[tuple[int, int, int]], **settings) -> tuple[WatchedRun, list[Tensor]]:
    """A run of the Restart sampler. Of its model evaluations those at the beginning of a step are
    kept."""
    ways = ways_down(rooms)
    x = latent(2) * ways[0][0]
    with make_run(x, ways, model, prompts=CAT_AND_DOG, **settings) as run:
        run.sample(SAMPLERS["restart_sampler"], x)
    # Heun's steps have two evaluations, but for the last one, to 0.
    steps = sum(n for _, _, n in rooms)
    assert len(run.attended) == 2 * steps - 1
    run.attended, run.rehearsed = run.attended[::2], run.rehearsed[::2]
    return run, ways


def masks_of_every_descent(run: WatchedRun, timing: str, ks: list[float], lengths: list[int]) -> list[list]:
    """The masks of all advances, per descent."""
    maps = target_maps(run.attended, WHERE)
    if timing == "static":
        fixed = masks_of(target_maps(run.rehearsed, WHERE).mean(axis=0), ks, 1.0)
        return [[fixed] * (n - 1) for n in lengths]
    # One of each evaluation: as if the clock moved after all of them.
    every = related_at(timing, np.concatenate([maps, maps[-1:]]), np.empty(0), ks, 1.0, lead=0)
    starts = np.cumsum([0, *lengths[:-1]])
    return [every[start : start + n - 1] for start, n in zip(starts, lengths, strict=True)]


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("timing", ["lagged", "fresh", "static"])
@pytest.mark.parametrize(("targets", "ks"), [("cat, dog", [0.5, 0.5]), ("cat:0.3, dog:0.7", [0.3, 0.7])])
@pytest.mark.parametrize("rooms", [ROOMS, SHORT], ids=["long", "short"])
def test_every_descent_has_a_clock_of_its_own_and_the_masks_of_its_timing(curve, timing, targets, ks, rooms):
    run, ways = restarted(rooms, targets=targets, mask_timing=timing, curve=curve)
    lengths = [n for _, _, n in rooms]
    masks = masks_of_every_descent(run, timing, ks, lengths)
    expected = [sigma_maps(curve, own, way[:-1].numpy()) for own, way in zip(masks, ways, strict=True)]
    # One evaluation: no mask.
    expected = [maps if len(maps[0]) == 2 else maps.repeat(2, axis=1) for maps in expected]
    np.testing.assert_allclose(torch.stack(run.seen).numpy(), np.concatenate(expected), rtol=1e-7)


@pytest.mark.parametrize("settings", [{"targets": "cat, dog"}, {"whole_picture": True, "curve": "exponential"}])
@pytest.mark.parametrize("rooms", [ROOMS, SHORT], ids=["long", "short"])
def test_all_pixels_meet_at_the_ends_of_every_descent(settings, rooms):
    ways = ways_down(rooms)
    x = latent(1)
    places = [(way, i) for way in ways for i in range(len(way) - 1)]
    lagged, end = 0, None
    with make_run(x, ways, model, **settings) as run:
        assert run.evaluations == len(places)
        for number, step in enumerate(run):
            way, i = places[number]
            assert step.i == number
            assert step.sigma.scalar == way[i]
            assert [own.scalar for own in step.before] == list(way[max(0, i - REMEMBERED) : i])
            assert step.risen_from == (end if i == 0 else None)
            if i == 0:
                assert (step.sigma.map == way[0]).all()
                assert not run.lagging.any()
            step.predict(x)
            to = step.advance()
            assert to.scalar == way[i + 1]
            lagged += run.lagging.sum()
            end = way[-1]
            if i == len(way) - 2:
                assert to.levels.tolist() == [end]
                assert (to.map == end).all()
    assert number == len(places) - 1
    assert lagged > 0


@pytest.mark.parametrize("timing", ["lagged", "static"])
def test_steps_are_counted_over_all_descents(timing):
    ways, called, watched, counters = ways_down(ROOMS), [], [], []
    x = latent(1) * ways[0][0]

    def observer(seen) -> None:
        watched.append((seen.i, seen.sigma.map, seen.mask))

    def progress(steps):
        counters.append(steps)
        return iter(steps)

    with make_run(x, ways, model, targets="cat", mask_timing=timing, callback=called.append) as run:
        run._observers, run.host.progress = [observer], progress
        run.sample(SAMPLERS["restart_sampler"], x)
    assert counters == [range(19)] * (2 if timing == "static" else 1)
    assert [state["i"] for state in called] == [i for i, _, _ in watched] == list(range(19))
    scalars = [sigma for way in ways for sigma in way[:-1]]
    assert [state["sigma"] for state in called] == scalars == [state["sigma_hat"] for state in called]
    assert torch.equal(torch.stack([sigma for _, sigma, _ in watched]), torch.stack(run.seen))
    assert [i for i, _, relation in watched if relation is None] == [4, 8, 12, 18], "an advance after the last one"


@pytest.mark.parametrize("rooms", [ROOMS, SHORT], ids=["long", "short"])
@pytest.mark.parametrize("timing", ["lagged", "fresh", "static"])
def test_no_token_map_is_recorded_that_nobody_uses(rooms, timing, monkeypatch):
    moves = [i < n - 1 for _, _, n in rooms for i in range(n)]
    used = [step for step, ahead in enumerate([*moves[1:], False] if timing == "lagged" else moves) if ahead]
    ways, recorded = ways_down(rooms), []
    x = latent(1) * ways[0][0]
    with make_run(x, ways, model, targets="cat", mask_timing=timing) as run:
        record = run.call._maps.record

        def recording(*arguments):
            recorded.append((run.rehearsing, len(run.seen) - 1, len(run.attended)))
            return record(*arguments)

        monkeypatch.setattr(run.call._maps, "record", recording)
        run.sample(SAMPLERS["restart_sampler"], x)
    if timing == "static":
        used = list(range(len(moves)))
        assert all(rehearsing for rehearsing, _, _ in recorded), "a map beside the static one"
    assert [step for _, step, _ in recorded] == used
    assert [evaluation for _, _, evaluation in recorded] == [2 * step for step in used], "not of the first evaluation"


def test_an_ordinary_pass_before_restart_leaves_the_random_numbers_as_they_were():
    ways = ways_down(ROOMS, torch.float32)
    x = latent(1).float() * ways[0][0]
    outs, called = [], []
    for timing in ("lagged", "static"):
        with make_run(x, ways, model, targets="bird", mask_timing=timing, callback=called.append) as run:
            outs.append(run.sample(SAMPLERS["restart_sampler"], x))
        assert bool(run.rehearsed) == (timing == "static")
    assert torch.equal(*outs)
    assert [state["i"] for state in called] == [*range(19)] * 2


@pytest.mark.parametrize("lead", [0, 1])
def test_in_an_ordinary_pass_before_no_pixel_lags(lead):
    """No pixel lags, not even before the first evaluation, where a grid moves the clock already."""
    n, told = 6, []
    grid = AuthorsGrid(n, LEVELS)
    authors = {"schedule": grid, "scalars": [*grid.sigma(torch.arange(1, n + 1)), torch.tensor(0.1)]} if lead else {}
    way = ways_down([(999, 0, n)])[0]
    x = latent(1)

    def model_told(x: Tensor, sigma: Tensor) -> Tensor:
        told.append(sigma)
        return x

    with make_run(x, way, model_told, targets="cat", mask_timing="static", **authors) as run:
        run.sample(SAMPLERS["sample_euler"], x)
    assert len(told) == 2 * n
    assert all(sigma.unique().numel() == 1 for sigma in told[:n])
    assert [sigma[0, 0, 0, 0] for sigma in told[:n]] == list(run.host.descents[0].scalars[:-1])
    assert any(sigma.unique().numel() > 1 for sigma in told[n:])


def test_noise_is_added_only_where_a_descent_begins_above_the_end_of_the_one_before():
    drawn = []
    for rooms in ([(999, 400, 3), (400, 0, 3)], [(999, 400, 3), (500, 300, 2), (200, 0, 3)]):
        ways = ways_down(rooms)
        x = latent(1) * ways[0][0]
        with make_run(x, ways, model, targets="cat") as run:
            like = run.host.randn_like
            run.host.randn_like = lambda x, like=like, run=run: (drawn.append(len(run.seen)), like(x))[1]
            run.sample(SAMPLERS["restart_sampler"], x)
    assert drawn == [4]
