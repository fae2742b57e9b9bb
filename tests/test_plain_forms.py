"""The plain forms, which state the method, against the fast ones behind the same interface."""

from __future__ import annotations

import pytest
import torch
from stand_ins import hooks_on, tiny_unet
from test_conditioning import KINDS, LEVELS, inputs, odd_sizes, random_index, unet_of  # noqa: F401
from test_run import ldm_run, ldm_sizes
from torch import Tensor, nn

from asyndm_lib import models
from asyndm_lib.models.family import Family
from asyndm_lib.models.unet import FAMILY, PLAIN
from asyndm_lib.samplers.table import SAMPLERS

SIZES = [(8, 12), (16, 8), (7, 11), (64, 48)]
ATTENDING = {"attention_resolutions": [1, 2, 4], "channel_mult": (1, 1, 1)}


def evaluated(family: Family, unet: nn.Module, timesteps: Tensor, index: Tensor, given: dict) -> Tensor:
    levels = family.timesteps(unet)
    levels.attach()
    try:
        with levels.use(timesteps, index):
            return unet(**given)
    finally:
        levels.detach()


@pytest.mark.usefixtures("odd_sizes")
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_both_forms_of_the_timesteps_give_the_same(kind, size):
    if kind == "blocks that resize" and size[0] % 2:
        pytest.skip("ldm's resizing blocks take even sizes only")
    unet, given, index = unet_of(kind), inputs(unet_of(kind), 3, *size), random_index(len(LEVELS), 3, *size)
    own = unet(**given)
    plain, fast = (evaluated(family, unet, LEVELS, index, given) for family in (PLAIN, FAMILY))
    torch.testing.assert_close(plain, fast, rtol=1e-4, atol=1e-5)
    assert (plain - own).abs().max() > 1e-2
    assert hooks_on(unet) == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("levels", [1, 4])
def test_both_forms_leave_pixels_that_do_not_lag_as_they_are_to_the_bit(kind, levels):
    unet, given = unet_of(kind), inputs(unet_of(kind))
    index = torch.zeros(3, 1, 8, 12, dtype=torch.int64)
    for family in (PLAIN, FAMILY):
        assert torch.equal(evaluated(family, unet, LEVELS[:levels], index, given), unet(**given))


@pytest.mark.usefixtures("odd_sizes")
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("options", [{}, ATTENDING, {"num_heads": 4}], ids=["usual", "many layers", "four heads"])
def test_both_forms_of_the_token_maps_give_the_same(options, size):
    unet, taken = tiny_unet(**options), []
    generator = torch.Generator().manual_seed(2)
    given = {
        "x": torch.randn(3, 4, *size, generator=generator),
        "timesteps": torch.full((3,), 500.0),
        "context": torch.randn(3, 77, 8, generator=generator),
    }
    weights = {row: torch.rand(77, 5, generator=generator) for row in ((0, 0), (1, 0))}
    rows = [(0, 0), None, (1, 0)]
    own = unet(**given)
    for family in (PLAIN, FAMILY):
        maps = family.token_maps(unet, size)
        maps.attach()
        for _ in range(2):
            with maps.record(rows, lambda row, context: weights[row]):
                assert torch.equal(unet(**given), own)
            found, means, _ = maps.take()
            assert found == [(0, 0), (1, 0)]
            assert means.shape == (2, 5, *maps.size)
        taken.append(means)
        assert maps.take().rows == []
        maps.detach()
        assert hooks_on(unet) == 0
    torch.testing.assert_close(*taken, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("timing", ["lagged", "fresh", "static"])
@pytest.mark.parametrize("curve", ["quadratic", "piecewise linear"])
def test_a_whole_run_in_the_plain_forms_makes_the_same_latent(timing, curve, monkeypatch):
    sigmas, x = ldm_sizes(2)
    outs = []
    for family in (PLAIN, FAMILY):
        monkeypatch.setattr(models, "FAMILIES", (family,))
        _, run = ldm_run(["a cat", "a dog and a cat"], sigmas, x, mask_timing=timing, curve=curve)
        with run:
            outs.append(run.sample(SAMPLERS["sample_euler"], x))
    torch.testing.assert_close(*outs, rtol=1e-3, atol=1e-3)
