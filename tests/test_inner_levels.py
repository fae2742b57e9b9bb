"""Inner noise levels: the pairs of a level now and one at the next evaluation that pixels hold."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from stand_ins import at_every_cell, make_run, uniform_sigmas
from test_clock import MANY, PIXELS, POSITIVE, journeys, mask_sequences, walk
from test_run import ldm_run, ldm_sizes
from torch import Tensor

from asyndm_lib.clock.clocks import Clock, CountingClock, Progress, StateClock
from asyndm_lib.clock.curves import CURVES

SHAPE = (1, 1, 2, PIXELS // 2)


def pairs(clock: Clock, now: Progress, to: Progress) -> tuple[Tensor, Tensor]:
    """The pairs of levels, after what holds for those of every clock."""
    own, others, index = clock.pairs((now.levels, now.index), (to.levels, to.index))
    assert own.shape == others.shape == (len(own),)
    assert (own[0], others[0]) == (now.levels[0], to.levels[0]), "the first is not the synchronous clock's"
    assert index.dtype == torch.int64
    assert index.shape == SHAPE
    assert torch.equal(own[index], at_every_cell(now))
    assert torch.equal(others[index], at_every_cell(to))
    assert ((index == 0) == (to.index == 0)).all(), "another pixel than those on the synchronous clock holds its pair"
    return own, others


@pytest.mark.parametrize("curve", CURVES)
@given(journeys(least=2))
@MANY
def test_pairs_of_any_curve_are_those_that_pixels_hold(curve, journey):
    masks, ks = journey
    clock = StateClock(len(masks), SHAPE, curve)
    seen = walk(clock, masks, ks)
    for now, to in pairwise(seen):
        own, _ = pairs(clock, now, to)
        held = set(zip(now.index.flatten().tolist(), to.index.flatten().tolist(), strict=True))
        assert len(own) == len(held | {(0, 0)})


@given(mask_sequences(least=2), POSITIVE)
@MANY
def test_pairs_of_the_counting_clock_are_known_in_advance(masks, k):
    clock = CountingClock(len(masks), SHAPE, k)
    seen = walk(clock, masks, k)
    for i, (now, to) in enumerate(pairwise(seen)):
        own, _ = pairs(clock, now, to)
        assert len(own) == 2 * i + 2


SETTINGS = {
    "counting": {"targets": "cat, dog"},
    "k = 0": {"targets": "cat, dog", "concavity": 0.0},
    "no pixel": {"targets": "bird"},
    "every pixel": {"whole_picture": True, "concavity": 0.8},
    "two k": {"targets": "cat:0.3, dog:0.8", "mask_timing": "fresh"},
    "piecewise": {"targets": "cat, dog", "curve": "piecewise linear", "concavity": 1.0},
    "exponential": {"targets": "cat, dog", "curve": "exponential", "mask_timing": "fresh"},
}


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("n", [1, 2, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_inner_level_is_every_pixels_own(settings, n, dtype):
    def level(now: Tensor, to: Tensor) -> Tensor:
        return 0.75 * now + 0.25 * to

    ways = [uniform_sigmas(n, dtype), uniform_sigmas(4, dtype)[1:]]
    x = torch.zeros(2, 4, 6, 8, dtype=dtype)
    seen = []
    with make_run(x, ways, lambda x, sigma: (seen.append(sigma), x)[1], **SETTINGS[settings]) as run:
        for step in run:
            step.predict(x)
            to = step.advance()
            for now in (step.sigma, step.sigma.apply(lambda sigma: 1.1 * sigma)):
                inner = step.between(level, now, to)
                assert torch.equal(inner.scalar, level(now.scalar, to.scalar))
                assert torch.equal(inner.map, level(now.map, to.map))
                assert inner.levels[0] == level(now.levels[0], to.levels[0])
                assert ((inner.index == 0) | run.lagging).all()
                step.predict(x, inner)
                levels = torch.where(run.lagging, inner.map, inner.scalar)
                assert torch.equal(seen[-1], levels), "the model was told of another"


def test_the_unet_is_told_the_timesteps_of_an_inner_level():
    sigmas, x = ldm_sizes(2)
    own, run = ldm_run(["a bird", "a cat"], sigmas, x, concavity=1.0)
    with run:
        steps = iter(run)
        next(steps).predict(x)
        run.advance()
        step = next(steps)
        inner = step.sigma.apply(lambda sigma: 0.6 * sigma)
        [level] = inner.map[1].unique()
        out = step.predict(x, inner)
    own.run = None
    assert torch.equal(out[0], own.predict(x, inner.scalar)[0])
    torch.testing.assert_close(out[1], own.predict(x, level)[1], rtol=1e-4, atol=1e-4 * x.std().item())
    assert level > 1.1 * inner.scalar
