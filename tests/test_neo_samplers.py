"""Forge Neo's samplers on a sigma map against the same on each pixel's own sigmas, for eps models
and flows."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from functools import partial

import k_diffusion.sampling as k
import pytest
import scalar_neo_samplers as scalar
import scalar_samplers
import torch
from stand_ins import FLOW, Noise, flow_sigmas, make_run, uniform_sigmas
from test_samplers import CHURN, PRECISIONS, SETTINGS, denoise, latent, unconditional, write_into
from torch import Tensor

from asyndm_lib.samplers.neo.table import LABELS, SAMPLERS
from asyndm_lib.samplers.neo.unipc import LAST_SIGMA


@dataclass(frozen=True)
class Case:
    """A function of Neo's with options. ``loose`` is how many times the rounding of its formulas is
    larger."""

    name: str
    options: dict = field(default_factory=dict)
    flow: bool = False
    loose: float = 1.0

    @property
    def takes(self) -> set[str]:
        return set(inspect.signature(SAMPLERS[self.name].function).parameters)

    @property
    def brownian(self) -> bool:
        return SAMPLERS[self.name].noise == "Brownian"

    def sigmas(self, steps: int, dtype: torch.dtype) -> Tensor:
        if self.flow:
            sigmas = flow_sigmas(steps, dtype)
            sigmas[0] = 0.9999 if SAMPLERS[self.name].begins_below_all_noise else 1.0
            return sigmas
        sigmas = uniform_sigmas(steps, dtype)
        if self.name == "sample_unipc":
            sigmas[-1] = LAST_SIGMA
        return sigmas


def both(name: str, options: dict | None = None, loose: float = 1.0) -> dict[str, Case]:
    label = ", ".join([name.removeprefix("sample_"), *(f"{key} {value}" for key, value in (options or {}).items())])
    kinds = {label: Case(name, options or {}, False, loose)}
    if SAMPLERS[name].takes("flow"):
        kinds[f"{label}, flow"] = Case(name, options or {}, True, 3 * loose)
    return kinds


ETAS = ({}, {"eta": 0.4, "s_noise": 1.01}, {"eta": 0.0})
CASES: dict[str, Case] = {}
for options in ETAS:
    CASES |= both("sample_euler_ancestral", options) | both("sample_dpmpp_2m_sde", options)
    CASES |= both("sample_dpmpp_sde", options) | both("sample_dpmpp_3m_sde", options)
    CASES |= both("sample_euler_ancestral_cfg_pp", options)
for options in ({}, {"eta": 0.4}, {"eta": 0.0}):
    CASES |= both("sample_Kohaku_LoNyu_Yog", options, loose=3)
    CASES[f"dpmpp_2s_ancestral_RF {options}"] = Case("sample_dpmpp_2s_ancestral_RF", options, True, 3)
CASES |= both("sample_Kohaku_LoNyu_Yog", {"s_churn": 8.0, "s_noise": 1.003}, loose=3)
CASES |= both("sample_euler_ancestral", {"eta": 1.6}) | both("sample_dpmpp_sde", {"r": 0.4})
CASES |= both("sample_er_sde", loose=30) | both("sample_er_sde", {"s_noise": 0.0}, loose=30)
CASES |= both("sample_res_multistep", loose=3) | both("sample_lcm") | both("sample_euler_cfg_pp")
CASES |= both("sample_unipc", loose=3) | both("sample_unipc", {"variant": "bh2"}, loose=3)
CASES |= both("sample_dpmpp_2m_cfg_pp")
del CASES["euler_ancestral, eta 1.6, flow"]  # leads below 0

OF_TWO_KINDS = {
    "sample_euler_ancestral": (scalar.euler_ancestral, scalar.euler_ancestral_flow),
    "sample_lcm": (scalar_samplers.lcm, scalar.lcm_flow),
}
SCALAR = {
    "sample_dpmpp_2s_ancestral_RF": scalar.dpmpp_2s_ancestral_rf,
    "sample_er_sde": scalar.er_sde,
    "sample_res_multistep": scalar.res_multistep,
    "sample_Kohaku_LoNyu_Yog": scalar.kohaku_lonyu_yog,
    "sample_unipc": scalar.unipc,
    "sample_euler_ancestral_cfg_pp": partial(scalar.euler_ancestral_cfgpp, unconditional=unconditional),
    "sample_euler_cfg_pp": partial(scalar.euler_ancestral_cfgpp, unconditional=unconditional, eta=0.0),
    "sample_dpmpp_2m_cfg_pp": partial(scalar.dpmpp_2m_cfgpp, unconditional=unconditional),
}


def on_scalars(case: Case, x: Tensor, sigmas: Tensor, callback=scalar_samplers.silent) -> Tensor:
    """The paper's sampler over ``sigmas``, with the numbers that :class:`Noise` draws."""
    drawn, options = Noise(), dict(case.options)
    if case.name in OF_TWO_KINDS:
        own = OF_TWO_KINDS[case.name][case.flow]
        return own(denoise, x, sigmas, _scaled(drawn, options), **options, callback=callback)
    if case.name in SCALAR:
        if case.name not in ("sample_Kohaku_LoNyu_Yog", "sample_er_sde"):
            drawn.like = _scaled(drawn, options)
        if case.flow and "flow" in case.takes:
            options["flow"] = True
        return SCALAR[case.name](denoise, x, sigmas, drawn.like, **options, callback=callback)

    def k_diffusion(model, x: Tensor, sigmas: Tensor, callback) -> Tensor:
        model_of_rows = lambda x, sigma: model(x, sigma.view(-1, 1, 1, 1))  # noqa: E731
        own = getattr(k, case.name)
        noise_sampler = lambda *_: drawn.like(x)  # noqa: E731
        return own(model_of_rows, x, sigmas, disable=True, callback=callback, noise_sampler=noise_sampler, **options)

    return scalar.in_signal_scale(denoise, x, sigmas, k_diffusion, case.flow, callback)


def _scaled(drawn: Noise, options: dict):
    s_noise, like = options.pop("s_noise", 1.0), drawn.like
    return lambda x: s_noise * like(x)


def on_maps(case: Case, x: Tensor, sigmas: Tensor, **settings) -> tuple[Tensor, Tensor]:
    """The result, and the sigma of every pixel at every evaluation ``[N, B, 1, H, W]``."""

    def watched(x: Tensor, sigma: Tensor) -> Tensor:
        assert x.isfinite().all(), "a real model would spread it over all pixels"
        assert (sigma > 0).all()
        return denoise(x, sigma)

    options = dict(case.options)
    if "flow" in case.takes:
        options["flow"] = case.flow
    levels = {"levels": FLOW} if case.flow else {}
    with make_run(x, sigmas, watched, **levels, **settings) as run:
        run.unconditional_of = unconditional
        if case.brownian:
            options["noise_sampler"] = lambda *_: run.host.randn_like(x)
        out = run.sample(SAMPLERS[case.name], x, **options)
    return out, torch.stack(run.seen)


def start(case: Case, size: tuple, dtype: torch.dtype, sigmas: Tensor) -> Tensor:
    return latent(size, dtype, sigmas[0])


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_equals_the_scalar_sampler_pixel_by_pixel(name, settings, dtype, tolerance):
    case = CASES[name]
    sigmas = case.sigmas(7, dtype)
    x = start(case, (2, 6, 8), dtype, sigmas)
    out, maps = on_maps(case, x, sigmas, **SETTINGS[settings])
    tolerance *= case.loose
    if case.name == "sample_er_sde" and dtype == torch.float64:
        tolerance = 1e-6  # the points of its sums are of single precision, as the host's
    sequences = torch.unique(maps.flatten(1).T, dim=0)
    assert len(sequences) > 1 or settings == "whole", "every pixel had the same sigmas"
    for sequence in sequences:
        mask = (maps == sequence.view(-1, 1, 1, 1, 1)).all(dim=0).expand_as(x)
        own = on_scalars(case, x, torch.cat([sequence, sigmas[-1:]]))
        torch.testing.assert_close(out[mask], own[mask], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("targets", ["cat, dog", "bird"])
def test_what_a_callback_writes_counts_as_in_the_host(name, targets):
    case = CASES[name]
    sigmas = case.sigmas(7, torch.float64)
    x = start(case, (1, 6, 8), torch.float64, sigmas)
    out, maps = on_maps(case, x.clone(), sigmas, targets=targets, callback=write_into)
    tolerance = 1e-6 if case.name == "sample_er_sde" else 1e-10 * case.loose
    for sequence in torch.unique(maps.flatten(1).T, dim=0):
        mask = (maps == sequence.view(-1, 1, 1, 1, 1)).all(dim=0).expand_as(x)
        own = on_scalars(case, x.clone(), torch.cat([sequence, sigmas[-1:]]), write_into)
        torch.testing.assert_close(out[mask], own[mask], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", CASES)
def test_latents_with_a_frame_become_what_they_are_without(name):
    case = CASES[name]
    sigmas = case.sigmas(7, torch.float64)
    x = start(case, (2, 7, 5), torch.float64, sigmas)
    out, maps = on_maps(case, x, sigmas, targets="cat, dog")
    framed, with_frame = on_maps(case, x.unsqueeze(2), sigmas, targets="cat, dog")
    assert torch.equal(with_frame.squeeze(3), maps)
    torch.testing.assert_close(framed.squeeze(2), out, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("settings", [{"targets": "cat, dog"}, {"whole_picture": True}], ids=["targets", "whole"])
def test_a_curve_that_holds_pixels_still(name, settings):
    """With k = 1 the piecewise linear clock stands at first: no formula may divide by a step of
    nothing."""
    case = CASES[name]
    sigmas = case.sigmas(9, torch.float32)
    x = start(case, (1, 6, 8), torch.float32, sigmas)
    out, maps = on_maps(case, x, sigmas, curve="piecewise linear", concavity=1.0, **settings)
    assert (maps[0] == maps[1]).any(), "no pixel stood still"
    assert out.isfinite().all()
    assert out.abs().max() < 50


HISTORIES = ["res_multistep", "er_sde, s_noise 0.0", "dpmpp_2m_sde, eta 0.0, flow", "dpmpp_3m_sde, eta 0.0"]
HISTORIES += ["dpmpp_2m_cfg_pp", "euler_cfg_pp", "euler_cfg_pp, flow", "dpmpp_2s_ancestral_RF {'eta': 0.0}"]


@pytest.mark.parametrize("name", [name for name in CASES if any(name.startswith(start) for start in HISTORIES)])
def test_a_pixel_that_was_held_goes_on_as_if_its_run_began_then(name):
    case = CASES[name]
    sigmas = case.sigmas(9, torch.float64)
    x = start(case, (1, 6, 8), torch.float64, sigmas)
    out, maps = on_maps(case, x, sigmas, curve="piecewise linear", concavity=1.0, whole_picture=True)
    levels = torch.cat([maps[:, 0, 0, 0, 0], sigmas[-1:]]).unique_consecutive()
    assert 4 < len(levels) < 8
    tolerance = 1e-6 if case.name == "sample_er_sde" else 1e-9
    torch.testing.assert_close(out, on_scalars(case, x, levels), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("steps", [2, 3, 4, 5])
def test_unipc_goes_down_in_order_where_there_are_few_steps(steps):
    case = CASES["unipc"]
    sigmas = case.sigmas(steps, torch.float64)
    x = start(case, (1, 6, 8), torch.float64, sigmas)
    out, _ = on_maps(case, x, sigmas, targets="bird")
    torch.testing.assert_close(out, on_scalars(case, x, sigmas), rtol=1e-9, atol=1e-9)


def test_unipc_tells_of_every_step_at_its_own_number():
    case, called = CASES["unipc"], []
    sigmas = case.sigmas(5, torch.float64)
    x = start(case, (1, 6, 8), torch.float64, sigmas)
    on_maps(case, x, sigmas, targets="cat", callback=called.append)
    assert [state["i"] for state in called] == list(range(5))
    assert all(state["denoised"].isfinite().all() for state in called)


@pytest.mark.parametrize("name", ["sample_euler", "sample_heun", "sample_dpm_2"])
def test_churn_draws_noise_only_where_it_adds_some(name, monkeypatch):
    drawn, like = [], Noise.like
    monkeypatch.setattr(Noise, "like", lambda self, x: (drawn.append(x), like(self, x))[1])
    sigmas = uniform_sigmas(9, torch.float64)
    within = ((sigmas >= CHURN["s_tmin"]) & (sigmas <= CHURN["s_tmax"]))[:-1]
    x = latent((1, 6, 8), torch.float64, sigmas[0])
    outs = []
    for options, count in (({}, 0), (CHURN, int(within.sum()))):
        drawn.clear()
        outs.append(on_maps(Case(name, options), x, sigmas, targets="bird")[0])
        assert len(drawn) == count
    assert 0 < count < 9
    assert not torch.equal(*outs)
    torch.testing.assert_close(outs[0], on_scalars_of(name, x, sigmas))


def on_scalars_of(name: str, x: Tensor, sigmas: Tensor) -> Tensor:
    return getattr(k, name)(lambda x, sigma: denoise(x, sigma.view(-1, 1, 1, 1)), x, sigmas, disable=True)


def test_the_last_step_of_lms_goes_to_the_prediction():
    sigmas, asked = uniform_sigmas(6, torch.float64), []
    x = latent((1, 6, 8), torch.float64, sigmas[0])

    def heard(x: Tensor, sigma: Tensor) -> Tensor:
        asked.append(denoise(x, sigma))
        return asked[-1]

    with make_run(x, sigmas, heard, targets="cat") as run:
        out = run.sample(SAMPLERS["sample_lms"], x)
    assert torch.equal(out, asked[-1])
    assert not torch.allclose(out, on_scalars_of("sample_lms", x, sigmas))


def test_every_sampler_is_tried():
    assert set(SAMPLERS) == {sampler.name for sampler, _ in LABELS.values()}
    plain = {"sample_dpmpp_2m", "sample_euler", "sample_heun", "sample_dpm_2", "sample_lms", "restart_sampler"}
    assert {case.name for case in CASES.values()} | plain | {"ddim", "plms"} == set(SAMPLERS)


def test_restart_has_the_descents_of_the_other_webuis():
    ways, _ = SAMPLERS["restart_sampler"].descents({"sigmas": uniform_sigmas(20)}, torch.device("cpu"))
    assert len(ways) == 3
