"""The table of final variances in docs/SUPPORT.md, and the program that makes it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import final_variance
import pytest
from stand_ins import uniform_sigmas

SUPPORT = (Path(__file__).resolve().parents[1] / "docs" / "SUPPORT.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["Euler a", "DPM++ SDE", "DPM++ 3M SDE", "DDIM, eta 1"])
def test_the_support_page_has_the_variances_of_the_program(name):
    assert f"\n{final_variance.row(name)}\n" in SUPPORT


def test_every_sampler_that_draws_noise_has_its_row():
    for name in final_variance.SAMPLERS:
        assert f"\n| {name} | " in SUPPORT


def test_the_variance_is_that_of_the_samplers_own_recursion():
    """Euler a takes a pixel to ``left`` of itself, and adds fresh noise."""
    expected = 1 + uniform_sigmas(final_variance.STEPS)[0].item() ** 2
    sigmas = uniform_sigmas(final_variance.STEPS).tolist()
    for sigma, to in pairwise(sigmas):
        up = min(to, (to**2 * (sigma**2 - to**2) / sigma**2) ** 0.5)
        down = (to**2 - up**2) ** 0.5
        left = 1 + sigma / (1 + sigma**2) * (down - sigma)
        expected = left**2 * expected + up**2
    assert final_variance.variance("Euler a") == pytest.approx(expected, rel=1e-9)
