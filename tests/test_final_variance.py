"""The table of final variances in docs/SUPPORT.md, and the program that makes it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import final_variance
import pytest
import torch
from stand_ins import LEVELS, uniform_sigmas
from torch import Tensor

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


def with_middles(sigmas: Tensor) -> Tensor:
    """The levels of DPM++ SDE's steps through ``sigmas``, in their order."""
    return torch.cat([torch.stack([sigmas[:-1], (sigmas[:-1] * sigmas[1:]).sqrt()], 1).flatten(), sigmas[-1:]])


@pytest.mark.parametrize("k", final_variance.SHOWN)
def test_what_two_draws_of_a_step_share_hardly_counts(k):
    """DPM++ SDE asks for both by the host's levels, whatever a pixel's own are."""
    name = "DPM++ SDE"
    [way], _ = final_variance.ways_down(*final_variance.SAMPLERS[name])
    host, last = way[:-1], len(way) - 2
    progress = torch.tensor([i - k * i * (1 - i / last) for i in range(last + 1)], dtype=torch.float64)
    low = progress.long().clamp(max=last - 1)
    times = LEVELS.sigma_to_t(host)
    own = LEVELS.t_to_sigma(torch.lerp(times[low], times[low + 1], progress - low))
    asked, moved = with_middles(host), with_middles(own)

    def motion(sigma: Tensor) -> Tensor:
        return moved[(asked.log() - sigma.log()).abs().argmin()]

    by_host, by_own = final_variance.variance(name, k=k), final_variance.variance(name, k=k, motion=motion)
    print(f"shared as the host's levels say: {by_host:.4f}, as the pixel's own: {by_own:.4f}")
    assert by_own != by_host
    assert abs(by_own - by_host) < 0.004
    assert abs(by_own - by_host) < abs(by_host - final_variance.variance(name)) / 10
