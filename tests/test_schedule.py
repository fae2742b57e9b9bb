"""Progress → noise level: the host's schedule at whole numbers, linear in the timestep between
them."""

from __future__ import annotations

import k_diffusion.sampling as k
import pytest
import torch
from authors_grid import AuthorsGrid
from hypothesis import given, settings
from hypothesis import strategies as st
from k_diffusion.external import DiscreteSchedule
from stand_ins import LEVELS, alphas_cumprod, at_every_cell, uniform_sigmas
from torch import Tensor

from asyndm_lib.clock.clocks import CountingClock, Mask
from asyndm_lib.clock.schedule import NoiseLevels, Schedule

SIGMA_MIN, SIGMA_MAX = 0.0292, 14.6146
SCHEDULES = {
    "uniform": lambda n: uniform_sigmas(n),
    "karras": lambda n: k.get_sigmas_karras(n, SIGMA_MIN, SIGMA_MAX),
    "exponential": lambda n: k.get_sigmas_exponential(n, SIGMA_MIN, SIGMA_MAX),
    "polyexponential": lambda n: k.get_sigmas_polyexponential(n, SIGMA_MIN, SIGMA_MAX, rho=0.7),
    "vp": lambda n: k.get_sigmas_vp(n),
    "karras beyond the model's range": lambda n: k.get_sigmas_karras(n, 0.001, 80.0),
    "exponential beyond the model's range": lambda n: k.get_sigmas_exponential(n, 0.001, 80.0),
    "all above the model's range": lambda n: k.get_sigmas_exponential(n, 20.0, 80.0),
}


def hosts(dtype: torch.dtype) -> DiscreteSchedule:
    """The host's own conversions."""
    alphas = alphas_cumprod(dtype)
    return DiscreteSchedule(((1 - alphas) / alphas) ** 0.5, quantize=False)


def schedule(name: str, n: int, dtype: torch.dtype, maps: object) -> tuple[Tensor, Schedule]:
    sigmas = SCHEDULES[name](n)[:-1].to(dtype)
    return sigmas, Schedule(sigmas, maps.sigma_to_t, maps.t_to_sigma)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("n", [1, 2, 20, 150])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("own", [True, False])
def test_sigma_at_a_whole_number_is_the_schedules_own_exactly(name, n, dtype, own):
    sigmas, here = schedule(name, n, dtype, NoiseLevels(alphas_cumprod(dtype)) if own else hosts(dtype))
    assert here.evaluations == n
    assert here.advances == n - 1
    assert torch.equal(here.sigma(torch.arange(n)), sigmas.double())
    assert here.sigma(torch.arange(n)).dtype == torch.float64


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("n", [2, 20, 150])
def test_sigma_falls_strictly_and_without_a_jump(name, n):
    sigmas, here = schedule(name, n, torch.float64, LEVELS)
    u = torch.linspace(0, n - 1, 64 * (n - 1) + 1, dtype=torch.float64)
    log = here.sigma(u).log()
    assert (log.diff() < 0).all()
    # No part of an interval falls far more than its share: 64 of them make one.
    assert (log.diff().abs().view(n - 1, 64).sum(dim=1) - sigmas.log().diff().abs()).abs().max() < 1e-9
    within = sigmas.log().diff().abs()[:, None].expand(-1, 64).reshape(-1)
    assert (log.diff().abs() < 0.75 * within + 1e-9).all()


@pytest.mark.parametrize("name", SCHEDULES)
def test_sigma_never_rises_with_the_hosts_own_maps_in_float32(name):
    _, here = schedule(name, 30, torch.float32, hosts(torch.float32))
    assert (here.sigma(torch.linspace(0, 29, 16 * 29 + 1, dtype=torch.float64)).diff() <= 0).all()


@given(st.integers(2, 150), st.data())
@settings(max_examples=50, deadline=None)
def test_a_uniform_schedule_is_linear_in_the_timestep(n, data):
    _, here = schedule("uniform", n, torch.float64, LEVELS)
    u = data.draw(st.floats(0, n - 1))
    sigma = here.sigma(torch.tensor(u, dtype=torch.float64))
    expected = 999 - 999 * u / (n - 1)
    assert here.timestep(sigma).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", ["karras", "exponential", "polyexponential"])
def test_between_two_knots_it_is_linear_in_the_timestep(name):
    sigmas, here = schedule(name, 12, torch.float64, LEVELS)
    knots = LEVELS.sigma_to_t(sigmas)
    for part in (0.1, 0.5, 0.9):
        u = torch.arange(11, dtype=torch.float64) + part
        expected = knots[:-1] * (1 - part) + knots[1:] * part
        torch.testing.assert_close(here.timestep(here.sigma(u)), expected, rtol=0, atol=1e-6)


def test_beyond_the_models_range_the_timestep_stands_still_and_sigma_goes_on():
    sigmas, here = schedule("all above the model's range", 5, torch.float64, LEVELS)
    u = torch.linspace(0, 4, 41, dtype=torch.float64)
    assert (here.timestep(here.sigma(u)) == 999).all()
    expected = torch.linspace(sigmas[0].log(), sigmas[-1].log(), 41, dtype=torch.float64)
    torch.testing.assert_close(here.sigma(u).log(), expected, rtol=0, atol=1e-6)


def test_progress_outside_the_schedule_is_held_at_its_ends():
    sigmas, here = schedule("karras", 6, torch.float64, LEVELS)
    assert torch.equal(here.sigma(torch.tensor([-1.0, 5.5, 9.0])), sigmas[[0, 5, 5]])


def test_sigma_takes_progress_of_any_shape():
    _, here = schedule("karras", 6, torch.float64, LEVELS)
    u = torch.rand(2, 1, 3, 4, generator=torch.Generator().manual_seed(1)) * 5
    assert here.sigma(u).shape == u.shape
    assert torch.equal(here.sigma(u).flatten(), here.sigma(u.flatten()))
    assert torch.equal(here.timestep(here.sigma(u)).flatten(), here.timestep(here.sigma(u).flatten()))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 3e-3), (torch.float64, 1e-7)])
def test_noise_levels_are_the_hosts_own_sigma_to_t(dtype, tolerance):
    own, host = NoiseLevels(alphas_cumprod(dtype)), hosts(dtype)
    random = torch.rand(500, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    edges = torch.tensor([1e-4, 0.001, 80.0, 1e4], dtype=torch.float64)
    for sigma in ((random * 8 - 4).exp().to(dtype), edges.to(dtype), host.sigmas):
        torch.testing.assert_close(own.sigma_to_t(sigma), host.sigma_to_t(sigma), rtol=0, atol=tolerance)
    map = host.sigmas[:24].view(2, 1, 3, 4)
    assert own.sigma_to_t(map).shape == map.shape
    assert own.sigma_to_t(torch.tensor(0.0, dtype=dtype)) == 0


def test_noise_levels_are_the_hosts_own_t_to_sigma():
    own, host = NoiseLevels(alphas_cumprod()), hosts(torch.float64)
    t = torch.cat([torch.arange(1000), 999 * torch.rand(500, generator=torch.Generator().manual_seed(3))])
    torch.testing.assert_close(own.t_to_sigma(t), host.t_to_sigma(t), rtol=1e-9, atol=0)
    assert own.t_to_sigma(torch.tensor(1200.0)) == own.t_to_sigma(torch.tensor(999.0))
    assert own.t_to_sigma(torch.tensor(-3.0)) == own.t_to_sigma(torch.tensor(0.0))
    assert own.t_to_sigma(t.view(3, -1)).shape == (3, 500)


@given(st.floats(0, 999))
def test_noise_levels_there_and_back_is_the_same_timestep(t):
    t = torch.tensor(t, dtype=torch.float64)
    torch.testing.assert_close(LEVELS.sigma_to_t(LEVELS.t_to_sigma(t)), t, rtol=0, atol=1e-8)


def authors_timesteps(evaluations: int, related: bool, strength: float = 0.5) -> list[float]:
    grid = AuthorsGrid(evaluations, LEVELS)
    clock = CountingClock(grid.advances, (1, 1, 1, 1), strength)
    seen = []
    for i in range(grid.lead + grid.evaluations):
        if i >= grid.lead:
            seen.append(grid.timestep(grid.sigma(at_every_cell(clock.progress))).item())
        clock.advance(Mask(torch.full((1, 1, 1, 1), related), torch.ones(1, 1, 1, 1)))
    return seen


def test_the_authors_grid_of_50_steps_is_981_961_to_1():
    assert authors_timesteps(50, related=False) == list(range(981, 0, -20))


@pytest.mark.parametrize("evaluations", [1, 7, 50, 150])
@pytest.mark.parametrize("strength", [0.3, 0.5, 1.0])
def test_the_authors_grid_of_a_related_pixel_is_their_formula_rounded(evaluations, strength):
    expected, state = [], 1001.0
    for step in range(evaluations):
        rest, curvature = evaluations - step, -strength * 1000 / evaluations**2
        # func_prev_binary(curve_type="bin") of the authors' asyn_sample.py, with target_value 1
        t0 = (curvature * rest**2 - (1 - state)) / (2 * curvature * rest)
        state = curvature * (1 - t0) ** 2 + state - curvature * t0**2
        # There is no timestep 1000, where the authors' code would fail.
        expected.append(min(state, 999.0))
    seen = authors_timesteps(evaluations, related=True, strength=strength)
    assert seen[-1] == 1
    assert seen == [int(t) for t in seen]
    # Half-way values may round to either side.
    assert all(abs(a - b) <= 0.5 + 1e-6 for a, b in zip(seen, expected, strict=True))


def test_the_authors_grid_has_the_sigmas_of_the_integer_timesteps():
    grid = AuthorsGrid(50, LEVELS)
    alphas = alphas_cumprod()[torch.arange(981, 0, -20)]
    sigma = grid.sigma(torch.arange(1, 51))
    torch.testing.assert_close(sigma, ((1 - alphas) / alphas) ** 0.5, rtol=1e-12, atol=0)
    assert torch.equal(grid.sigma(torch.tensor([1.01, 0.99])), sigma[[0, 0]])
