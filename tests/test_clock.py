"""The clocks of docs/METHOD.md, section 1, over any sequence of masks."""

from __future__ import annotations

import math
from pathlib import Path

import k_diffusion.sampling
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stand_ins import LEVELS, at_every_cell
from torch import Tensor

from asyndm_lib.clock.clocks import UNEVEN, Clock, CountingClock, Mask, Progress, StateClock, make_clock
from asyndm_lib.clock.curves import CURVES, RULES, quadratic
from asyndm_lib.clock.schedule import Schedule

PIXELS = 8
NEVER, ALWAYS, EARLY, LATE, ALTERNATE = range(5)  # the other pixels are random
STRENGTHS = st.integers(0, 1000).map(lambda k: k / 1000)
POSITIVE = st.integers(1, 1000).map(lambda k: k / 1000)
MANY = settings(max_examples=15, deadline=None)
ROUNDING = 2.0**-30  # StateClock groups states to this much of a step


@st.composite
def mask_sequences(draw, least: int = 1) -> Tensor:
    """Masks of ``M`` advances of a run of 1 to 150 steps (at least ``least``), bool ``[M,
    PIXELS]``."""
    m = draw(st.integers(least, 150)) - 1
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    masks = random.random((m, PIXELS)) < draw(st.sampled_from([0.05, 0.5, 0.95]))
    i = np.arange(m)
    masks[:, NEVER], masks[:, ALWAYS] = False, True
    masks[:, EARLY], masks[:, LATE], masks[:, ALTERNATE] = i < m // 2, i >= m // 2, i % 2 == 0
    return torch.from_numpy(masks)


@st.composite
def strengths_of(draw, masks: Tensor, most: int = 3) -> Tensor:
    """A concavity for every pixel and advance, out of a few, as where several targets have their
    own."""
    choices = torch.tensor(draw(st.lists(STRENGTHS, min_size=1, max_size=most)), dtype=torch.float64)
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    return choices[torch.from_numpy(random.integers(0, len(choices), masks.shape))]


@st.composite
def journeys(draw, least: int = 1) -> tuple[Tensor, Tensor]:
    masks = draw(mask_sequences(least))
    return masks, draw(strengths_of(masks))


def relation(mask: Tensor, k: Tensor) -> Mask:
    return Mask(mask.view(1, 1, 2, -1), k.view(1, 1, 2, -1))


def walk(clock: Clock, masks: Tensor, ks: Tensor | float) -> list[Progress]:
    """The progress before every evaluation."""
    ks = torch.as_tensor(ks, dtype=torch.float64).expand(masks.shape)
    seen = [clock.progress]
    for mask, k in zip(masks, ks, strict=True):
        clock.advance(relation(mask, k))
        seen.append(clock.progress)
    return seen


def states(progress: list[Progress]) -> Tensor:
    """``u`` before every evaluation, ``[M + 1, PIXELS]``."""
    return torch.stack([at_every_cell(p).flatten() for p in progress])


def clocks_of(curve: str, masks: Tensor, k: float) -> list[Clock]:
    """Every clock that can run this curve with one concavity."""
    shape = (1, 1, 2, PIXELS // 2)
    counting = [CountingClock(len(masks), shape, k)] if curve == "quadratic" else []
    return [*counting, StateClock(len(masks), shape, curve)]


def by_hand(rule, masks: Tensor, ks: Tensor | float) -> Tensor:
    """The table of docs/METHOD.md in Python's floats: ``rule(u, k, r, m)`` for related pixels,
    linear for the others."""
    m = len(masks)
    ks = torch.as_tensor(ks, dtype=torch.float64).expand(masks.shape).tolist()
    rows = [[0.0] * masks.shape[1]]
    for i in range(m):
        r = m - i
        rows.append(
            [
                (rule(u, k, r, m) if related else u + (m - u) / r) if r > 1 else float(m)
                for u, k, related in zip(rows[-1], ks[i], masks[i].tolist(), strict=True)
            ]
        )
    return torch.tensor(rows, dtype=torch.float64)


def parabola(u: float, k: float, r: int, m: int) -> float:
    """The parabola of curvature ``-kT/m²`` through ``(0, state)`` and ``(r, end)`` at 1, in
    timesteps."""
    T, state, end = 1000.0, 1000.0 - 1000.0 * u / m, 0.0
    q = -k * T / m**2
    slope = (end - state - q * r**2) / r
    return (T - (q + slope + state)) * m / T


def knee(u: float, k: float, r: int, m: int) -> float:
    return max(u + 1 - k, m - (1 + k) * (r - 1))


def exponential_by_bisection(u: float, k: float, r: int, m: int) -> float:
    """The curve ``y = a·exp(λ(x - x0)) + b·x + c`` through ``(0, state)`` and ``(r, 0)`` at 1, in
    timesteps. ``x0`` is found."""
    T, state = 1000.0, 1000.0 - 1000.0 * u / m
    lam, a, b = 1 / m, -k * T / (math.e - 1), -(1 - k) * T / m

    def end(x0: float) -> float:
        c = state - a * math.exp(-lam * x0)
        return a * math.exp(lam * (r - x0)) + b * r + c

    low, high = -30.0 * m, 30.0 * m  # end() rises with x0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if end(middle) < 0 else (low, middle)
    c = state - a * math.exp(-lam * low)
    return (T - (a * math.exp(lam * (1 - low)) + b + c)) * m / T


@pytest.mark.parametrize("curve", CURVES)
@given(journeys())
@MANY
def test_progress_never_passes_the_synchronous_clock_and_ends_with_it(curve, journey):
    masks, ks = journey
    u = states(walk(StateClock(len(masks), (1, 1, 2, PIXELS // 2), curve), masks, ks))
    assert (u <= torch.arange(len(u))[:, None]).all()
    assert (u[0] == 0).all()
    assert (u[-1] == len(masks)).all()


@given(mask_sequences(), STRENGTHS)
@MANY
def test_the_counting_clock_never_passes_the_synchronous_clock_and_ends_with_it(masks, k):
    u = states(walk(CountingClock(len(masks), (1, 1, 2, PIXELS // 2), k), masks, k))
    assert (u <= torch.arange(len(u))[:, None]).all()
    assert (u[0] == 0).all()
    assert (u[-1] == len(masks)).all()


@pytest.mark.parametrize("curve", ["quadratic", "exponential"])
@given(journeys(least=2))
@MANY
def test_progress_strictly_increases(curve, journey):
    masks, ks = journey
    shape = (1, 1, 2, PIXELS // 2)
    u = states(walk(StateClock(len(masks), shape, curve), masks, ks))
    assert (u.diff(dim=0) > 0).all()


@given(mask_sequences(least=2), STRENGTHS)
@MANY
def test_progress_of_the_counting_clock_strictly_increases(masks, k):
    u = states(walk(CountingClock(len(masks), (1, 1, 2, PIXELS // 2), k), masks, k))
    assert (u.diff(dim=0) > 0).all()


@given(journeys(least=2))
@MANY
def test_piecewise_linear_progress_increases_by_at_least_1_minus_k_and_so_may_rest_only_with_k_1(journey):
    masks, ks = journey
    u = states(walk(StateClock(len(masks), (1, 1, 2, PIXELS // 2), "piecewise linear"), masks, ks))
    least = torch.where(masks, 1 - ks, torch.ones(()))
    assert (u.diff(dim=0) >= least - 2 * ROUNDING).all()
    assert (u.diff(dim=0) >= 0).all()
    assert (masks & (ks == 1))[u.diff(dim=0) == 0].all()


def test_piecewise_linear_with_k_1_rests_for_the_first_half():
    masks = torch.ones(8, PIXELS, dtype=torch.bool)
    u = states(walk(StateClock(8, (1, 1, 2, PIXELS // 2), "piecewise linear"), masks, 1.0))
    assert u[:, 0].tolist() == [0, 0, 0, 0, 0, 2, 4, 6, 8]


@pytest.mark.parametrize("curve", CURVES)
@given(mask_sequences(), STRENGTHS)
@MANY
def test_a_pixel_never_related_is_on_the_synchronous_clock_exactly(curve, masks, k):
    for clock in clocks_of(curve, masks, k):
        for i, progress in enumerate(walk(clock, masks, k)):
            pixel = progress.index.flatten()[NEVER]
            assert pixel == 0
            assert progress.levels[pixel] == i
        assert not clock.touched.flatten()[NEVER]


@pytest.mark.parametrize("curve", CURVES)
@given(mask_sequences())
@MANY
def test_concavity_0_is_linear_and_leaves_every_pixel_on_the_synchronous_level(curve, masks):
    for clock in clocks_of(curve, masks, 0.0):
        for i, progress in enumerate(walk(clock, masks, 0.0)):
            assert (progress.index == 0).all()
            assert progress.levels[0] == i
        assert not clock.touched.any()


@pytest.mark.parametrize("curve", CURVES)
@given(mask_sequences(least=3), POSITIVE)
@MANY
def test_touched_are_the_pixels_that_were_ever_related(curve, masks, k):
    for clock in clocks_of(curve, masks, k):
        walk(clock, masks[:2], k)
        assert torch.equal(clock.touched.flatten(), masks[:2].any(dim=0))


def unevenness(u: Tensor) -> float:
    """How many times as much as in even steps differences of predictions count at the most."""
    h = u.diff(dim=0)
    first = h[1:] / h[:-1]
    second = 2 * h[2:] ** 2 / ((h[1:-1] + h[:-2]) * torch.minimum(h[1:-1], h[:-2]))
    return max(first.max().item(), second.max().item())


@pytest.mark.parametrize(("curve", "k"), [("quadratic", 0.7), ("exponential", 1.0), ("piecewise linear", 0.5)])
@given(mask_sequences(least=4))
@MANY
def test_ordinary_curves_are_even_enough_for_every_formula(curve, k, masks):
    for clock in clocks_of(curve, masks, k):
        assert unevenness(states(walk(clock, masks, k))) < UNEVEN


@given(mask_sequences(least=4), STRENGTHS)
@MANY
def test_a_counting_clock_that_says_so_is_never_uneven(masks, k):
    clock = CountingClock(len(masks), (1, 1, 2, PIXELS // 2), k)
    progress = states(walk(clock, masks, k))
    assert clock.uneven or unevenness(progress) < UNEVEN


def test_the_papers_own_parabola_is_even_enough_and_masks_that_change_can_make_it_uneven():
    always = torch.ones(20, PIXELS, dtype=torch.bool)
    clock = CountingClock(20, (1, 1, 2, PIXELS // 2), 1.0)
    assert unevenness(states(walk(clock, always, 1.0))) == pytest.approx(12.5)
    always[1:] = False
    clock = CountingClock(20, (1, 1, 2, PIXELS // 2), 1.0)
    assert unevenness(states(walk(clock, always, 1.0))) > UNEVEN
    assert clock.uneven


@pytest.mark.parametrize("curve", CURVES)
@given(mask_sequences(), POSITIVE)
@MANY
def test_progress_is_the_same_as_a_map_and_as_a_table(curve, masks, k):
    for clock in clocks_of(curve, masks, k):
        for mask in masks:
            clock.advance(relation(mask, torch.full((PIXELS,), k)))
            torch.testing.assert_close(clock.everywhere.double(), at_every_cell(clock.progress), rtol=0, atol=1e-4)


@given(mask_sequences(least=3), POSITIVE)
@MANY
def test_a_related_pixel_lags_behind_until_the_end(masks, k):
    for curve in CURVES:
        for clock in clocks_of(curve, masks, k):
            lag = torch.arange(len(masks) + 1)[:, None] - states(walk(clock, masks, k))
            assert (lag[1:-1, ALWAYS] > 0).all()


@given(mask_sequences(), STRENGTHS)
@MANY
def test_the_closed_form_is_the_step_rule_and_both_are_the_parabola(masks, k):
    counted = states(walk(CountingClock(len(masks), (1, 1, 2, PIXELS // 2), k), masks, k))
    stepped = states(walk(StateClock(len(masks), (1, 1, 2, PIXELS // 2), "quadratic"), masks, k))
    expected = by_hand(parabola, masks, k)
    torch.testing.assert_close(counted, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(stepped, expected, rtol=0, atol=1e-6)


@given(mask_sequences(least=2), STRENGTHS)
@MANY
def test_the_quadratic_rule_alone_is_the_closed_form(masks, k):
    m = len(masks)
    u, count = torch.zeros(PIXELS, dtype=torch.float64), torch.zeros(PIXELS)
    for i, mask in enumerate(masks):
        strength = k * mask.double()
        u, count = quadratic(u, strength, m - i, m), count + mask
        torch.testing.assert_close(u, i + 1 - k * count.double() * (1 - (i + 1) / m), rtol=0, atol=1e-6)


@given(journeys())
@MANY
def test_with_several_concavities_the_quadratic_lag_is_their_sum(journey):
    masks, ks = journey
    m = len(masks)
    u = states(walk(StateClock(m, (1, 1, 2, PIXELS // 2), "quadratic"), masks, ks))
    total = torch.cat([torch.zeros(1, PIXELS), torch.where(masks, ks, 0.0).cumsum(dim=0)])
    i = torch.arange(m + 1, dtype=torch.float64)[:, None]
    torch.testing.assert_close(u, i - total * (1 - i / max(m, 1)), rtol=0, atol=ROUNDING)
    torch.testing.assert_close(u, by_hand(parabola, masks, ks), rtol=0, atol=1e-6)


@pytest.mark.parametrize("m", [1, 2, 7, 24, 49, 149])
def test_with_k_1_and_always_related_it_is_the_papers_f(m):
    always = torch.ones(m, PIXELS, dtype=torch.bool)
    paper = [m - i**2 / m for i in range(m + 1)]  # f(i) = T - i²/T, what is left of T steps
    for clock in clocks_of("quadratic", always, 1.0):
        u = states(walk(clock, always, 1.0))[:, 0]
        torch.testing.assert_close(m - u, torch.tensor(paper, dtype=torch.float64), rtol=0, atol=ROUNDING)


@given(journeys())
@MANY
def test_piecewise_linear_is_its_formula(journey):
    masks, ks = journey
    u = states(walk(StateClock(len(masks), (1, 1, 2, PIXELS // 2), "piecewise linear"), masks, ks))
    torch.testing.assert_close(u, by_hand(knee, masks, ks), rtol=0, atol=ROUNDING)


def test_piecewise_linear_goes_slowly_then_quickly():
    masks = torch.ones(8, PIXELS, dtype=torch.bool)
    u = states(walk(StateClock(8, (1, 1, 2, PIXELS // 2), "piecewise linear"), masks, 0.5))
    assert u[:, 0].tolist() == [0, 0.5, 1, 1.5, 2, 3.5, 5, 6.5, 8]


@given(mask_sequences(), POSITIVE)
@settings(max_examples=10, deadline=None)
def test_exponential_is_the_curve_through_the_state_and_the_end(masks, k):
    u = states(walk(StateClock(len(masks), (1, 1, 2, PIXELS // 2), "exponential"), masks, k))
    torch.testing.assert_close(u, by_hand(exponential_by_bisection, masks, k), rtol=0, atol=1e-6)


@pytest.mark.parametrize("curve", CURVES)
@given(journeys())
@MANY
def test_levels_are_distinct_and_the_index_picks_them(curve, journey):
    masks, ks = journey
    clock = StateClock(len(masks), (1, 1, 2, PIXELS // 2), curve)
    u = states(walk(StateClock(len(masks), (1, 1, 2, PIXELS // 2), curve), masks, ks))
    for i, (progress, own) in enumerate(zip(walk(clock, masks, ks), u, strict=True)):
        _check(progress, i)
        lagging = progress.levels[1:]
        assert len(lagging.unique()) == len(lagging)
        assert set(range(1, len(progress.levels))) <= set(progress.index.flatten().tolist()), "a level of no pixel"
        assert torch.equal(progress.levels[progress.index].flatten(), own)
    assert ((progress.index == 0) == ~clock.touched).all()


@given(mask_sequences(), STRENGTHS)
@MANY
def test_levels_of_the_counting_clock_are_known_in_advance(masks, k):
    clock = CountingClock(len(masks), (1, 1, 2, PIXELS // 2), k)
    tables = clock.levels(range(len(masks) + 1))
    for i, progress in enumerate(walk(clock, masks, k)):
        _check(progress, i)
        assert len(progress.levels) == (i + 1 if k else 1)
        assert torch.equal(progress.levels, tables[i])


def _check(progress: Progress, i: int) -> None:
    assert progress.levels.dtype == torch.float64
    assert progress.levels[0] == i
    assert progress.index.dtype == torch.int64
    assert progress.index.shape == (1, 1, 2, PIXELS // 2)
    assert progress.index.min() >= 0
    assert progress.index.max() < len(progress.levels)


@given(st.integers(0, 2**32), POSITIVE, POSITIVE)
@MANY
def test_equal_histories_in_another_order_share_a_level(seed, k, other):
    random = np.random.default_rng(seed)
    history = np.array([k, other, k, other, k] + [0.0] * 45)
    ks = torch.from_numpy(np.stack([random.permutation(history) for _ in range(64)], axis=1))
    clock = StateClock(52, (1, 1, 2, 32), "quadratic")
    progress = walk(clock, ks > 0, ks)[-1]
    assert len(progress.levels) == 2
    assert (progress.index == 1).all()


def test_images_of_a_batch_keep_their_own_state():
    mask = torch.tensor([True, False, False]).view(3, 1, 1, 1).expand(3, 1, 2, 2)
    for clock in (CountingClock(6, (3, 1, 2, 2), 0.5), StateClock(6, (3, 1, 2, 2), "exponential")):
        clock.advance(Mask(mask, torch.full((3, 1, 2, 2), 0.5)))
        u = at_every_cell(clock.progress)
        assert (u[0] < 1).all()
        assert (u[1:] == 1).all()


@pytest.mark.parametrize(
    ("curve", "concavities", "kind"),
    [
        ("quadratic", [0.5], CountingClock),
        ("quadratic", [0.3, 0.3], CountingClock),
        ("quadratic", [0.3, 0.5], StateClock),
        ("piecewise linear", [0.5], StateClock),
        ("exponential", [0.5], StateClock),
    ],
)
def test_make_clock_counts_where_a_count_is_enough(curve, concavities, kind):
    clock = make_clock(5, (1, 1, 2, 2), curve, concavities)
    assert type(clock) is kind
    k = torch.full((1, 1, 2, 2), concavities[-1], dtype=torch.float64)
    clock.advance(Mask(torch.ones(1, 1, 2, 2, dtype=torch.bool), k))
    expected = RULES[curve](torch.zeros(1, dtype=torch.float64), k[0, 0, 0, :1], 5, 5)
    torch.testing.assert_close(at_every_cell(clock.progress)[0, 0, 0, :1], expected, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize(("karras", "timesteps", "lagging", "host"), [(True, 216, 1.6, 0.8), (False, 125, 2.7, 1.8)])
def test_the_settings_page_tells_how_far_the_same_concavity_lags_on_two_schedules(karras, timesteps, lagging, host):
    sigmas = LEVELS.t_to_sigma(torch.linspace(999, 0, 20, dtype=torch.float64))
    if karras:
        sigmas = k_diffusion.sampling.get_sigmas_karras(20, sigmas[-1].item(), sigmas[0].item())[:-1].double()
    schedule = Schedule(sigmas, LEVELS.sigma_to_t, LEVELS.t_to_sigma)
    clock = make_clock(19, (1, 1, 1, 1), "quadratic", [0.5])
    lags = []
    for i in range(20):
        at = schedule.sigma(clock.progress.levels[clock.progress.index.flatten()])[0]
        lags.append(((schedule.timestep(at) - schedule.timestep(sigmas[i])).item(), at.item(), sigmas[i].item()))
        clock.advance(Mask(torch.ones(1, 1, 1, 1, dtype=torch.bool), torch.full((1, 1, 1, 1), 0.5)))
    most, at, of = max(lags)
    assert (round(most), round(at, 1), round(of, 1)) == (timesteps, lagging, host)
    page = (Path(__file__).resolve().parents[1] / "docs" / "SETTINGS.md").read_text(encoding="utf-8")
    assert f"{timesteps} " in page
    assert f"{lagging} for {host}" in page
