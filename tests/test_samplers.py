"""Every sampler on a sigma map against the host's own on each pixel's own sigmas."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import k_diffusion.sampling as k
import pytest
import scalar_neo_samplers
import scalar_samplers
import torch
import toy_errors
from stand_ins import FLOW, LEVELS, Noise, alphas_cumprod, flow_sigmas, make_run, uniform_sigmas
from torch import Tensor

from asyndm_lib.clock.schedule import NoiseLevels, Schedule
from asyndm_lib.hosts.common.own_scalars import lms_coefficients
from asyndm_lib.samplers.dpm_fast import Solver
from asyndm_lib.samplers.lms import weights
from asyndm_lib.samplers.table import LABELS, SAMPLERS
from asyndm_lib.samplers.unipc import Marginals

SIZES = [(1, 6, 8), (2, 7, 5)]
PRECISIONS = [(torch.float32, 1e-5), (torch.float64, 1e-10)]
CHURN = {"s_churn": 8.0, "s_tmin": 0.5, "s_tmax": 12.0, "s_noise": 1.003}
EXTENT = (0.03, 14.6)
SETTINGS = {
    "lagged": {"targets": "cat, dog"},
    "fresh": {"targets": "cat, dog:0.7", "mask_timing": "fresh"},
    "static": {"targets": "dog", "mask_timing": "static", "concavity": 1.0},
    "whole": {"whole_picture": True, "concavity": 0.8},
    "piecewise": {"targets": "cat, dog", "curve": "piecewise linear", "concavity": 0.5},
    "exponential": {"targets": "cat, dog:0.2", "curve": "exponential", "mask_timing": "fresh"},
}


def parameters(name: str) -> Collection[str]:
    return inspect.signature(SAMPLERS[name].function).parameters


@dataclass(frozen=True)
class Case:
    """A sampler function of a host with options. ``loose`` is how many times the rounding of its
    formulas is larger."""

    name: str
    options: dict = field(default_factory=dict)
    loose: float = 1.0

    @property
    def own(self) -> bool:
        """Whether the WebUI, not k-diffusion, has the scalar one."""
        return not hasattr(k, self.name)

    @property
    def scaled(self) -> bool:
        return SAMPLERS[self.name].levels == "timesteps"

    @property
    def brownian(self) -> bool:
        return SAMPLERS[self.name].noise == "Brownian"


CASES = {
    "Euler": Case("sample_euler"),
    "Euler, churn": Case("sample_euler", CHURN),
    "Euler a": Case("sample_euler_ancestral"),
    "Euler a, eta": Case("sample_euler_ancestral", {"eta": 0.4, "s_noise": 1.01}),
    "Euler a, eta above 1": Case("sample_euler_ancestral", {"eta": 1.6}),
    "Euler a, eta 0": Case("sample_euler_ancestral", {"eta": 0.0}),
    "Heun": Case("sample_heun"),
    "Heun, churn": Case("sample_heun", CHURN),
    "DPM2": Case("sample_dpm_2"),
    "DPM2, churn": Case("sample_dpm_2", CHURN),
    "DPM2 a": Case("sample_dpm_2_ancestral"),
    "DPM2 a, eta": Case("sample_dpm_2_ancestral", {"eta": 0.4, "s_noise": 1.01}),
    "DPM2 a, eta 0": Case("sample_dpm_2_ancestral", {"eta": 0.0}),
    "LMS": Case("sample_lms", loose=3),
    "LMS, order 1": Case("sample_lms", {"order": 1}),
    "LMS, order 2": Case("sample_lms", {"order": 2}, loose=3),
    "LMS, order 6": Case("sample_lms", {"order": 6}, loose=30),
    "DPM++ 2M": Case("sample_dpmpp_2m"),
    "DPM++ 2S a": Case("sample_dpmpp_2s_ancestral"),
    "DPM++ 2S a, eta": Case("sample_dpmpp_2s_ancestral", {"eta": 0.4, "s_noise": 1.01}),
    "DPM++ 2S a, eta 0": Case("sample_dpmpp_2s_ancestral", {"eta": 0.0}),
    "DPM++ SDE": Case("sample_dpmpp_sde"),
    "DPM++ SDE, eta": Case("sample_dpmpp_sde", {"eta": 0.4, "s_noise": 1.01, "r": 0.4}),
    "DPM++ SDE, eta 0": Case("sample_dpmpp_sde", {"eta": 0.0}),
    "DPM++ 2M SDE": Case("sample_dpmpp_2m_sde"),
    "DPM++ 2M SDE, eta": Case("sample_dpmpp_2m_sde", {"eta": 0.4, "s_noise": 1.01}),
    "DPM++ 2M SDE, eta 0": Case("sample_dpmpp_2m_sde", {"eta": 0.0}),
    "DPM++ 2M SDE Heun": Case("sample_dpmpp_2m_sde", {"solver_type": "heun"}),
    "DPM++ 3M SDE": Case("sample_dpmpp_3m_sde"),
    "DPM++ 3M SDE, eta": Case("sample_dpmpp_3m_sde", {"eta": 0.4, "s_noise": 1.01}),
    "DPM++ 3M SDE, eta 0": Case("sample_dpmpp_3m_sde", {"eta": 0.0}),
    "DPM fast": Case("sample_dpm_fast", loose=3),
    "DPM fast, eta": Case("sample_dpm_fast", {"eta": 1.0, "s_noise": 1.01}, loose=3),
    "Restart": Case("restart_sampler"),
    "Restart, noise": Case("restart_sampler", {"s_noise": 1.01}),
    "LCM": Case("sample_lcm"),
    "DDIM": Case("ddim"),
    "DDIM, eta": Case("ddim", {"eta": 0.7}),
    "DDIM CFG++": Case("ddim_cfgpp"),
    "DDIM CFG++, eta": Case("ddim_cfgpp", {"eta": 0.7}),
    "PLMS": Case("plms", loose=3),
    "HeunPP2": Case("sample_heunpp2"),
    "HeunPP2, churn": Case("sample_heunpp2", CHURN),
    "IPNDM": Case("sample_ipndm", loose=3),
    "IPNDM_V": Case("sample_ipndm_v", loose=10),
    "DEIS": Case("sample_deis", loose=30),
    "DDPM": Case("sample_ddpm", loose=3),
    "UniPC": Case("unipc", loose=3),
    "UniPC, bh2": Case("unipc", {"variant": "bh2"}, loose=3),
    "UniPC, vary_coeff": Case("unipc", {"variant": "vary_coeff"}, loose=3),
    "UniPC, order 1": Case("unipc", {"order": 1}),
    "UniPC, order 2": Case("unipc", {"order": 2}, loose=3),
    "UniPC, full order to the end": Case("unipc", {"lower_order_final": False}, loose=30),
}
SCALAR = {
    "restart_sampler": scalar_samplers.restart,
    "sample_lcm": scalar_samplers.lcm,
    "ddim": scalar_samplers.ddim,
    "ddim_cfgpp": scalar_samplers.ddim,
    "plms": scalar_samplers.plms,
    "unipc": scalar_samplers.unipc,
    "sample_lms": scalar_samplers.lms,
    "sample_heunpp2": scalar_samplers.heunpp2,
    "sample_ipndm": scalar_samplers.ipndm,
    "sample_ipndm_v": scalar_samplers.ipndm_v,
    "sample_deis": scalar_samplers.deis,
    "sample_ddpm": scalar_samplers.ddpm,
}
BESIDE = {"sample_heunpp2": "ahead", **dict.fromkeys(("sample_lms", "sample_ipndm", "sample_ipndm_v"), "lags")}
"""What the scalar one is told beside a pixel's sigmas: those seen ahead, or where it lags."""
K_DIFFUSION = [name for name, case in CASES.items() if not case.own]


def denoise(x: Tensor, sigma: Tensor) -> Tensor:
    """A denoiser that treats every pixel on its own, and not linearly."""
    return torch.tanh(x / (1 + sigma)) + 0.1 * torch.sin(3 * x / (sigma**2 + 1) ** 0.5)


def unconditional(x: Tensor, prediction: Tensor) -> Tensor:
    return 0.8 * prediction + 0.1 * torch.cos(x)


def write_into(state: dict) -> None:
    """A callback that changes the tensors that it is shown, as ReSharpen and Vectorscope CC do."""
    state["x"].mul_(1.01).add_(0.1)
    if state["denoised"] is not None:
        state["denoised"].mul_(0.9)


def latent(size: tuple, dtype: torch.dtype, scale: Tensor | float = 1.0) -> Tensor:
    batch, height, width = size
    random = torch.Generator().manual_seed(5)
    return torch.randn(batch, 4, height, width, generator=random, dtype=torch.float64).to(dtype) * scale


def ways_down(
    case: Case, steps: int, dtype: torch.dtype, device: str = "cpu", sigmas: Callable = uniform_sigmas
) -> tuple[list[Tensor], dict]:
    """The descents of a run of ``steps``, and the options that are left for the sampler."""
    options = dict(case.options)
    if case.name == "sample_dpm_fast":
        low, high = torch.tensor(EXTENT, dtype=dtype, device=device)
        options |= {"n": 2 * steps, "sigma_min": low, "sigma_max": high}
    elif case.name == "restart_sampler":
        options |= {"sigmas": sigmas(steps, dtype), "restart_list": {0.5: [4, 2, 3.0]}}
    elif case.scaled:
        options["sigmas"] = LEVELS.t_to_sigma(torch.linspace(999, 1, steps + 1, dtype=torch.float64)).to(dtype)
    else:
        options["sigmas"] = sigmas(steps, dtype)
    options = {key: value.to(device) if isinstance(value, Tensor) else value for key, value in options.items()}
    ways, options = SAMPLERS[case.name].descents(options, torch.device(device))
    ways = [way.to(dtype) for way in ways]
    if "times" in options:  # of single precision in k-diffusion too
        options["times"] = options["times"].to(dtype)
        ways = [torch.stack([(-t).exp() for t in options["times"]])]
    return ways, options


def on_maps(
    case: Case, x: Tensor, ways: list[Tensor], options: dict, samplers: dict = SAMPLERS, **settings
) -> tuple[Tensor, Tensor]:
    """The result, and the sigma of every pixel at every step, then what :data:`BESIDE` names,
    ``[N, B, 1, H, W]``."""

    def watched(x: Tensor, sigma: Tensor) -> Tensor:
        assert x.isfinite().all(), "a real model would spread it over all pixels"
        assert (sigma > 0).all()
        return denoise(x, sigma)

    with make_run(x, ways, watched, **settings) as run:
        run.unconditional_of = unconditional
        if case.brownian:
            options = {**options, "noise_sampler": lambda *_: run.host.randn_like(x)}
        out = run.sample(samplers[case.name], x, **options)
    beside = {"ahead": run.glimpsed, "lags": run.lagged}.get(BESIDE.get(case.name), [])
    return out, torch.stack([*run.seen, *beside])


def of_one_sequence(
    sequence: Tensor, maps: Tensor, ways: list[Tensor], options: dict
) -> tuple[Tensor, list[Tensor], dict]:
    """Which pixels have this ``sequence`` of sigmas, its descents, and their options."""
    mask = (maps == sequence.view(-1, 1, 1, 1, 1)).all(dim=0)
    *own, beside = sequence.split([*(len(way) - 1 for way in ways), len(maps) - sum(len(way) - 1 for way in ways)])
    own = [torch.cat([levels, way[-1:]]) for levels, way in zip(own, ways, strict=True)]
    # A pixel's own t are those of its own sigmas.
    kept = {key: value for key, value in options.items() if key != "times"}
    return mask, own, {**kept, "beside": beside} if len(beside) else kept


@pytest.fixture
def hosts_own(monkeypatch):
    """The host's own sampler, with the numbers that :class:`Noise` draws."""

    def sample(case: Case, x: Tensor, ways: list[Tensor], options: dict, callback=None) -> Tensor:
        noise = Noise()
        if case.own or "beside" in options:
            more = {"unconditional": unconditional} if case.name == "ddim_cfgpp" else {}
            given = ways if case.name == "restart_sampler" else ways[0]
            kept = {key: value for key, value in case.options.items() if key != "restart_list"}
            kept |= {BESIDE[case.name]: options["beside"]} if "beside" in options else {}
            more |= {"callback": callback} if callback else {}
            return SCALAR[case.name](denoise, x, given, noise.like, **kept, **more)

        class Torch:
            randn_like = staticmethod(noise.like)
            linspace = staticmethod(lambda *args, **kwargs: options.get("times", -ways[0].log()))

            def __getattr__(self, name: str):
                return getattr(torch, name)

        monkeypatch.setattr(k, "torch", Torch())
        more = {"noise_sampler": lambda *_: noise.like(x)} if case.brownian else {}
        if case.name == "sample_dpm_fast":
            more |= {**dict(zip(("sigma_min", "sigma_max"), EXTENT, strict=True)), "n": sum(options["orders"])}
        else:
            more |= {"sigmas": ways[0]}
        model = lambda x, sigma: denoise(x, sigma.view(-1, 1, 1, 1))  # noqa: E731
        return getattr(k, case.name)(model, x, disable=True, callback=callback, **case.options, **more)

    return sample


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("size", SIZES)
def test_equals_the_scalar_sampler_pixel_by_pixel(name, settings, dtype, tolerance, size, hosts_own):
    case = CASES[name]
    ways, options = ways_down(case, 7, dtype)
    x = latent(size, dtype, 1.0 if case.scaled else ways[0][0])
    out, maps = on_maps(case, x, ways, options, **SETTINGS[settings])
    tolerance *= case.loose
    sequences = torch.unique(maps.flatten(1).T, dim=0)
    assert len(sequences) > 1 or settings == "whole", "every pixel had the same sigmas"
    for sequence in sequences:
        mask, own, kept = of_one_sequence(sequence, maps, ways, options)
        mask = mask.expand_as(x)
        scalar = hosts_own(case, x, own, kept)
        torch.testing.assert_close(out[mask], scalar[mask], rtol=tolerance, atol=tolerance)


ON_FLOWS = [name for name, case in CASES.items() if not case.scaled]
"""What the WebUIs offer for flow models beside. The timestep samplers' scale is another."""


@pytest.mark.parametrize("settings", ["fresh", "static", "whole", "piecewise"])
@pytest.mark.parametrize("name", ON_FLOWS)
@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_on_a_flow_it_equals_the_scalar_sampler_pixel_by_pixel(
    name, settings, dtype, tolerance, hosts_own, monkeypatch
):
    """From sigma 1, where there is no signal, by a shifted way down."""
    monkeypatch.setattr(sys.modules[__name__], "EXTENT", (0.003, 1.0))
    case = CASES[name]
    ways, options = ways_down(case, 7, dtype, sigmas=flow_sigmas)
    assert ways[0][0] == 1
    x = latent((2, 7, 5), dtype)
    out, maps = on_maps(case, x, ways, options, levels=FLOW, **SETTINGS[settings])
    tolerance *= (10 if name == "LMS, order 6" else 1) * case.loose
    sequences = torch.unique(maps.flatten(1).T, dim=0)
    assert len(sequences) > 1 or settings == "whole", "every pixel had the same sigmas"
    for sequence in sequences:
        mask, own, kept = of_one_sequence(sequence, maps, ways, options)
        mask = mask.expand_as(x)
        scalar = hosts_own(case, x, own, kept)
        torch.testing.assert_close(out[mask], scalar[mask], rtol=tolerance, atol=tolerance)


ANCESTRAL_ON_FLOWS = {
    "sample_euler_ancestral": scalar_neo_samplers.euler_ancestral_flow,
    "sample_dpm_2_ancestral": scalar_neo_samplers.dpm_2_ancestral_flow,
}


@pytest.mark.parametrize("settings", [*SETTINGS, "held"])
@pytest.mark.parametrize("eta", [1.0, 0.4, 0.0])
@pytest.mark.parametrize("name", ANCESTRAL_ON_FLOWS)
@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_forges_own_forms_for_flux_add_noise_as_a_flow_wants_it(name, settings, eta, dtype, tolerance):
    sigmas = flow_sigmas(7, dtype)
    x = latent((2, 7, 5), dtype)
    held = {"targets": "cat, dog", "curve": "piecewise linear", "concavity": 1.0}
    case, options = Case(name, {"eta": eta, "flow": True}), {"eta": eta, "flow": True}
    out, maps = on_maps(case, x, [sigmas], options, levels=FLOW, **SETTINGS.get(settings, held))
    assert out.isfinite().all()
    if settings == "held":
        assert (maps[0] == maps[1]).any(), "no pixel stood still"
        return
    for sequence in torch.unique(maps.flatten(1).T, dim=0):
        mask = (maps == sequence.view(-1, 1, 1, 1, 1)).all(dim=0).expand_as(x)
        own = ANCESTRAL_ON_FLOWS[name](denoise, x, torch.cat([sequence, sigmas[-1:]]), Noise().like, eta)
        # With eta 0 the noise to add is the root of a difference of nothing.
        close = 3 * (tolerance if eta else tolerance**0.5)
        torch.testing.assert_close(out[mask], own[mask], rtol=close, atol=close)


@pytest.mark.parametrize("name", CASES)
def test_what_a_callback_writes_counts_as_in_the_host_pixel_by_pixel(name, hosts_own):
    case = CASES[name]
    ways, options = ways_down(case, 7, torch.float64)
    x = latent((1, 6, 8), torch.float64, 1.0 if case.scaled else ways[0][0])
    out, maps = on_maps(case, x.clone(), ways, options, targets="cat, dog", callback=write_into)
    unedited, _ = on_maps(case, x.clone(), ways, options, targets="cat, dog")
    assert (out - unedited).abs().max() > 0.01
    sequences = torch.unique(maps.flatten(1).T, dim=0)
    assert len(sequences) > 1
    for sequence in sequences:
        mask, own, kept = of_one_sequence(sequence, maps, ways, options)
        mask = mask.expand_as(x)
        scalar = hosts_own(case, x.clone(), own, kept, write_into)
        torch.testing.assert_close(out[mask], scalar[mask], rtol=1e-10 * case.loose, atol=1e-10 * case.loose)


@pytest.mark.parametrize("name", CASES)
def test_latents_with_a_frame_become_what_they_are_without(name):
    case = CASES[name]
    ways, options = ways_down(case, 7, torch.float64)
    x = latent((2, 7, 5), torch.float64, 1.0 if case.scaled else ways[0][0])
    out, maps = on_maps(case, x, ways, options, targets="cat, dog")
    framed, with_frame = on_maps(case, x.unsqueeze(2), ways, options, targets="cat, dog")
    assert torch.equal(with_frame.squeeze(3), maps)
    torch.testing.assert_close(framed.squeeze(2), out, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("settings", [{"targets": "cat, dog"}, {"whole_picture": True}], ids=["targets", "whole"])
def test_a_curve_that_holds_pixels_still(name, settings):
    """With k = 1 the piecewise linear clock stands at first: no formula may divide by a step of
    nothing."""
    case = CASES[name]
    ways, options = ways_down(case, 9, torch.float32)
    x = latent((1, 6, 8), torch.float32, 1.0 if case.scaled else ways[0][0])
    out, maps = on_maps(case, x, ways, options, curve="piecewise linear", concavity=1.0, **settings)
    assert (maps[0] == maps[1]).any(), "no pixel stood still"
    assert out.isfinite().all()
    assert out.abs().max() < 50


HISTORIES = ["Euler", "Heun", "DPM2", "DPM++ 2M", "DPM++ 2S a, eta 0", "DPM++ 2M SDE, eta 0", "DPM++ 3M SDE, eta 0"]


@pytest.mark.parametrize("name", HISTORIES)
def test_a_pixel_that_was_held_goes_on_as_if_its_run_began_then(name, hosts_own):
    case = CASES[name]
    ways, options = ways_down(case, 9, torch.float64)
    x = latent((1, 6, 8), torch.float64, ways[0][0])
    out, maps = on_maps(case, x, ways, options, curve="piecewise linear", concavity=1.0, whole_picture=True)
    levels = torch.cat([maps[:, 0, 0, 0, 0], ways[0][-1:]]).unique_consecutive()
    assert 4 < len(levels) < 8
    torch.testing.assert_close(out, hosts_own(case, x, [levels], options), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["LMS", "IPNDM", "IPNDM_V", "DEIS"])
@pytest.mark.parametrize("curve", ["quadratic", "piecewise linear", "exponential"])
@pytest.mark.parametrize("concavity", [0.25, 0.7, 0.99, 1.0])
def test_the_weights_of_a_lagging_pixels_slopes_add_up_to_1(name, curve, concavity):
    """A straight way has one slope, and every rule must go along it."""
    case = CASES[name]
    sigmas = uniform_sigmas(20)
    x = latent((1, 6, 8), torch.float64, sigmas[0])
    straight = lambda x, sigma: x - 3 * sigma  # noqa: E731
    with make_run(x, sigmas, straight, whole_picture=True, curve=curve, concavity=concavity) as run:
        out = run.sample(SAMPLERS[case.name], x)
        assert run.lagging.all()
    torch.testing.assert_close(out, x - 3 * sigmas[0], rtol=0, atol=1e-8)


TOYS = [
    ("quadratic", 0.7, toy_errors.MASKS[0]),
    *(("piecewise linear", k, toy_errors.MASKS[0]) for k in (0.7, 0.9, 0.999)),
    *((curve, 1.0, toy_errors.MASKS[1]) for curve in ("quadratic", "piecewise linear", "exponential")),
]
GOES_BY = {"IPNDM": "LMS"}
"""Whose the host's yardstick is where what lags goes by another sampler's weights."""


@pytest.mark.parametrize("name", [*toy_errors.MULTISTEP, *(f"Neo's {name}" for name in toy_errors.NEO_MULTISTEP)])
def test_what_lags_misses_a_toys_solution_by_no_more_than_the_host_in_half_as_many_steps(name):
    """A pixel's longest step is 1 + k of the schedule's, so two of them at most. A quarter more is
    for steps that cannot be halved. What errors of the model do is bounded by clocks.UNEVEN."""
    steps = 20
    misses, moved = toy_errors.yardsticks(GOES_BY.get(name, name), steps)
    for curve, concavity, masks in TOYS:
        found = toy_errors.missed(name, steps, curve=curve, concavity=concavity, **masks)
        assert found[0] < 1.25 * misses, (curve, concavity, masks)
        assert found[1] < 3 * moved, (curve, concavity, masks)


MULTISTEP = ["DPM++ 2M", "DPM++ 2M SDE", "DPM++ 2M SDE Heun", "DPM++ 3M SDE", "UniPC", "UniPC, bh2", "DEIS"]


@pytest.mark.parametrize("name", MULTISTEP)
@pytest.mark.parametrize("settings", [{"whole_picture": True}, {"targets": "cat, dog", "mask_timing": "fresh"}])
def test_a_pixel_that_is_all_but_held_goes_on_as_one_that_is_held(name, settings):
    case = CASES[name]
    ways, options = ways_down(case, 9, torch.float64)
    x = latent((1, 6, 8), torch.float64, 1.0 if case.scaled else ways[0][0])
    settings = {**settings, "curve": "piecewise linear"}
    held, nearly = (on_maps(case, x, ways, options, concavity=k, **settings)[0] for k in (1.0, 1 - 1e-7))
    torch.testing.assert_close(nearly, held, rtol=0, atol=3e-3)  # the noise of so short steps


def test_lms_goes_by_its_newest_slope_alone_while_levels_coincide():
    to, a, b = (torch.full((3,), level, dtype=torch.float64) for level in (1.0, 2.0, 5.0))
    a[2] = b[2]
    moved, held = torch.stack(weights([to, a, b])).T, torch.stack(weights([to, a, a, b])).T
    torch.testing.assert_close(moved[2], torch.tensor([-4.0, 0.0], dtype=torch.float64))
    assert (moved[:2, 1] != 0).all()
    torch.testing.assert_close(held[0], torch.tensor([-1.0, 0.0, 0.0], dtype=torch.float64))


@pytest.mark.parametrize("steps", [3, 4, 5])
def test_unipc_goes_down_in_order_where_there_are_few_steps(steps, hosts_own):
    case = CASES["UniPC"]
    ways, options = ways_down(case, steps, torch.float64)
    x = latent((1, 6, 8), torch.float64)
    out, _ = on_maps(case, x, ways, options, targets="bird")
    torch.testing.assert_close(out, hosts_own(case, x, ways, options), rtol=1e-9, atol=1e-9)


DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")),
]


@pytest.mark.parametrize("name", K_DIFFUSION)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("steps", [1, 2, 3, 25])
@pytest.mark.parametrize("device", DEVICES)
def test_without_related_pixels_it_is_the_hosts_own_to_the_bit(name, dtype, steps, device, hosts_own):
    case = CASES[name]
    if steps == 1 and case.name in ("sample_dpmpp_2m_sde", "sample_dpmpp_3m_sde"):
        pytest.skip("k-diffusion's own cannot make a single step")
    ways, options = ways_down(case, steps, dtype, device)
    if case.name == "sample_lms":
        options["coefficients"] = lms_coefficients(ways[0], case.options.get("order", 4))
    x = latent((2, 9, 7), dtype, ways[0][0].cpu()).to(device)
    ours, theirs = [], []
    out, _ = on_maps(case, x, ways, options, targets="bird", callback=ours.append)
    assert torch.equal(out, hosts_own(case, x, ways, options, theirs.append))
    assert len(ours) == len(theirs) > 0
    for our, their in zip(ours, theirs, strict=True):
        # DPM-Solver counts from its noise, and has more to tell.
        torch.testing.assert_close(our.pop("denoised"), their.pop("denoised"), rtol=1e-6, atol=1e-5)
        assert all(torch.equal(torch.as_tensor(our[key]), torch.as_tensor(their[key])) for key in our)


@pytest.mark.parametrize("name", K_DIFFUSION)
@pytest.mark.parametrize("settings", [{"targets": "bird"}, {"whole_picture": True, "concavity": 0.0}], ids=str)
def test_what_a_callback_writes_counts_as_in_the_host_to_the_bit(name, settings, hosts_own):
    case = CASES[name]
    ways, options = ways_down(case, 6, torch.float32)
    if case.name == "sample_lms":
        options["coefficients"] = lms_coefficients(ways[0], case.options.get("order", 4))
    x = latent((2, 9, 7), torch.float32, ways[0][0])
    shown: dict[str, list] = {"ours": [], "theirs": []}

    def editor(where: list):
        def callback(state: dict) -> None:
            where.append((state["x"].clone(), state["denoised"].clone()))
            write_into(state)

        return callback

    out, _ = on_maps(case, x.clone(), ways, options, callback=editor(shown["ours"]), **settings)
    own = hosts_own(case, x.clone(), ways, options, editor(shown["theirs"]))
    assert torch.equal(out, own)
    assert len(shown["ours"]) == len(shown["theirs"])
    for ours, theirs in zip(shown["ours"], shown["theirs"], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("name", ["Euler", "Heun, churn", "DPM2", "DPM2 a, eta", "DPM++ SDE, eta 0", "DPM fast, eta"])
def test_noise_is_drawn_as_often_as_the_host_does(name, hosts_own, monkeypatch):
    drawn, like = [], Noise.like
    monkeypatch.setattr(Noise, "like", lambda self, x: (drawn.append(x), like(self, x))[1])
    case = CASES[name]
    ways, options = ways_down(case, 5, torch.float32)
    x = latent((1, 6, 8), torch.float32, ways[0][0])
    on_maps(case, x, ways, options, targets="bird")
    ours = len(drawn)
    hosts_own(case, x, ways, options)
    assert len(drawn) == 2 * ours > 0


@pytest.mark.parametrize("name", [name for name in K_DIFFUSION if "noise_sampler" in parameters(CASES[name].name)])
def test_a_noise_sampler_is_asked_for_the_hosts_own_levels(name):
    case, asked = CASES[name], []
    ways, options = ways_down(case, 5, torch.float32)
    x = latent((1, 6, 8), torch.float32, ways[0][0])

    def noise_sampler(sigma: Tensor, to: Tensor) -> Tensor:
        asked.append((sigma.item(), to.item()))
        return torch.cos(x + sigma)

    with make_run(x, ways, denoise, targets="cat") as run:
        run.sample(SAMPLERS[case.name], x, **options, noise_sampler=noise_sampler)
    ours, asked[:] = asked[:], []
    if case.name == "sample_dpm_fast":
        more = {**dict(zip(("sigma_min", "sigma_max"), EXTENT, strict=True)), "n": sum(options["orders"])}
    else:
        more = {"sigmas": ways[0]}
    model = lambda x, sigma: denoise(x, sigma.view(-1, 1, 1, 1))  # noqa: E731
    getattr(k, case.name)(model, x, disable=True, **case.options, **more, noise_sampler=noise_sampler)
    assert ours == asked
    assert ours or case.options.get("eta") == 0


@pytest.mark.parametrize("name", ["DDIM, eta", "DDIM CFG++, eta", "PLMS", "UniPC"])
def test_the_hosts_own_scalars_hold_for_pixels_on_its_clock_alone(name):
    """A host's own rounding may not be the schedule's."""
    case = CASES[name]
    ways, options = ways_down(case, 6, torch.float64)
    rounded = ways[0] * 1.001
    a = 1 / (1 + rounded**2)
    scalars = {"alphas": list(a)}
    if "eta" in options:
        scalars["added"] = list(0.6 * ((1 - a[1:]) / (1 - a[:-1]) * (1 - a[:-1] / a[1:])).sqrt())
    if case.name == "unipc":
        scalars = {"marginals": [Marginals(a.sqrt(), s * a.sqrt(), -s.log()) for a, s in zip(a, rounded, strict=True)]}
    x, outs = latent((2, 6, 8), torch.float64), []
    still = lambda x, sigma: torch.tanh(x)  # noqa: E731
    for given in ({}, scalars):
        with make_run(x, ways, still, prompts=["bird", "cat"], targets="cat", mask_timing="fresh") as run:
            run.unconditional_of = unconditional
            outs.append(run.sample(SAMPLERS[case.name], x, **options, **given))
    more = {"unconditional": unconditional} if case.name == "ddim_cfgpp" else {}
    more |= {"eta": 0.6} if "added" in scalars else {}
    own = SCALAR[case.name](still, x, rounded, Noise().like, **{**case.options, **more})
    never = run.lagging.logical_not().expand_as(x)
    assert never[0].all()
    assert 0 < never[1].sum() < never[1].numel()
    torch.testing.assert_close(outs[1][never], own[never], rtol=1e-9, atol=1e-9)
    assert (outs[1][never] - outs[0][never]).abs().max() > 1e-6
    assert (outs[1][~never] - own[~never]).abs().max() > 0.01


@pytest.mark.parametrize("name", ["ddim", "ddim_cfgpp", "plms", "sample_lcm", "restart_sampler"])
def test_callbacks_of_the_webuis_own_samplers(name):
    """The callbacks of the timestep samplers come after the step, the others' before."""
    case, called, asked = Case(name), [], []
    ways, options = ways_down(case, 5, torch.float64)
    x = latent((1, 6, 8), torch.float64)

    def denoise_heard(x: Tensor, sigma: Tensor) -> Tensor:
        asked.append((x, denoise(x, sigma)))
        return asked[-1][1]

    with make_run(x, ways, denoise_heard, targets="cat", callback=called.append) as run:
        run.unconditional_of = unconditional
        out = run.sample(SAMPLERS[name], x, **options)
    assert [state["i"] for state in called] == list(range(run.evaluations))
    assert [state["sigma"] for state in called] == [sigma for way in ways for sigma in way[:-1]]
    # PLMS' first step has a second evaluation; Heun's all, but for the last.
    firsts = {"plms": [asked[0], *asked[2:]], "restart_sampler": asked[::2]}.get(name, asked)
    if case.scaled:
        expected = [x for x, _ in firsts[1:]] + [out]
    else:
        expected = [x for x, _ in firsts]
        assert all(torch.equal(state["denoised"], own) for state, (_, own) in zip(called, firsts, strict=True))
    assert all(torch.equal(state["x"], own) for state, own in zip(called, expected, strict=True))


def test_callbacks_of_unipc_tell_the_corrected_latents():
    case, called = Case("unipc"), []
    ways, options = ways_down(case, 5, torch.float64)
    x = latent((1, 6, 8), torch.float64)
    with make_run(x, ways, denoise, targets="cat", callback=called.append) as run:
        out = run.sample(SAMPLERS["unipc"], x, **options)
    assert [state["i"] for state in called] == list(range(5))
    *corrected, last = called
    assert all(state["denoised"].isfinite().all() for state in corrected)
    assert last["denoised"] is None
    assert torch.equal(last["x"], out)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dpm_fast_gives_no_nan_to_a_pixel_that_is_held_at_any_level(dtype):
    """The noise to add is a difference of nothing there, which rounding may make negative."""
    t = torch.linspace(-2.7, 3.5, 20001, dtype=torch.float64).to(dtype)
    solver = Solver(t[-1] + 0.1, 1.0)
    ones = torch.ones_like(t)
    moved = solver.noised(solver.step(ones, [ones, 2 * ones, 3 * ones], t, t), ones, 1.0, t, t)
    torch.testing.assert_close(moved, ones, rtol=0, atol=5e-3)


ZERO_SNR = alphas_cumprod().sqrt()
ZERO_SNR = (ZERO_SNR - ZERO_SNR[-1]) * ZERO_SNR[0] / (ZERO_SNR[0] - ZERO_SNR[-1])
ZERO_SNR = NoiseLevels(ZERO_SNR.clamp(min=2.2e-4) ** 2)
"""Zero terminal SNR (Lin et al. 2024), as the WebUIs have it."""

ANCESTRAL = [name for name, case in CASES.items() if "eta" in parameters(case.name) and not case.scaled]


@pytest.mark.parametrize("name", [name for name in ANCESTRAL if CASES[name].name != "sample_dpm_fast"])
@pytest.mark.parametrize("schedule", ["karras", "uniform"])
@pytest.mark.parametrize("curve", ["quadratic", "piecewise linear", "exponential"])
def test_a_step_from_almost_all_noise_gives_no_nan_to_a_lagging_pixel(name, schedule, curve):
    """Of a step between levels of a hundred and one all is noise again, by rounding more than
    all."""
    case = CASES[name]
    for steps in (3, 4):
        if schedule == "karras":
            sigmas = k.get_sigmas_karras(steps, 0.03, ZERO_SNR.t_to_sigma(torch.tensor(999.0)).item())
        else:
            sigmas = ZERO_SNR.t_to_sigma(torch.linspace(999, 0, steps, dtype=torch.float64)).float()
            sigmas = torch.cat([sigmas, torch.zeros(1)])
        x = latent((1, 6, 8), torch.float32, sigmas[0])
        maps = Schedule(sigmas[:-1], ZERO_SNR.sigma_to_t, ZERO_SNR.t_to_sigma)
        for concavity in (0.25, 0.5, 0.7, 1.0):
            out, _ = on_maps(
                case, x, [sigmas], case.options, schedule=maps, targets="cat, dog", curve=curve, concavity=concavity
            )
            assert out.isfinite().all()
            assert out.abs().max() < 50


def test_where_the_host_adds_no_noise_a_lagging_pixel_comes_to_its_own_level():
    """DPM2 a's step down to 0 is one without noise; another pixel's may lead elsewhere."""
    sigmas, seen = torch.tensor([4000.0, 0.5, 0.2, 0.0]), []
    x = latent((2, 6, 8), torch.float32, sigmas[0])
    picture = torch.ones_like(x)

    def watched(x: Tensor, sigma: Tensor) -> Tensor:
        seen.append((x, sigma))
        return picture

    maps = Schedule(sigmas[:-1], ZERO_SNR.sigma_to_t, ZERO_SNR.t_to_sigma)
    lag = {"targets": "cat", "concavity": 0.9, "prompts": ["a bird", "a cat"]}
    with make_run(x, sigmas, watched, schedule=maps, **lag) as run:
        run.sample(SAMPLERS["sample_dpm_2_ancestral"], x)
    x_1, sigma_1 = seen[1]
    lagging = (sigma_1 > 2).expand_as(x)
    assert 0 < lagging.sum() < lagging.numel()
    expected = picture + (x - picture) * sigma_1 / 4000
    rounding = {"rtol": 0, "atol": 4000 * 2**-22}
    torch.testing.assert_close(x_1[lagging], expected[lagging], **rounding)
    torch.testing.assert_close(x_1[~lagging], picture[~lagging], **rounding)


def test_every_sampler_is_tried():
    assert {case.name for case in CASES.values()} == set(SAMPLERS) == {sampler.name for sampler, _ in LABELS.values()}


def test_restart_goes_by_heuns_steps_alone_when_there_are_few():
    options = {"sigmas": uniform_sigmas(19, torch.float32)}
    (way,), _ = SAMPLERS["restart_sampler"].descents(options, torch.device("cpu"))
    assert torch.equal(way, uniform_sigmas(19, torch.float32))


def test_restart_leaves_out_ways_back_that_lead_nowhere():
    sigmas = uniform_sigmas(10, torch.float32)
    for plan in ({0.5: [4, 2, 0.1]}, {0.5: [1, 2, 3.0]}):  # down instead of up; of a single knot
        options = {"sigmas": sigmas, "restart_list": plan}
        ways, rest = SAMPLERS["restart_sampler"].descents(options, torch.device("cpu"))
        assert rest == {}
        assert set(options) == {"sigmas", "restart_list"}, "the host's own options were changed"
        assert all(len(way) > 1 for way in ways)
        assert torch.equal(torch.cat([ways[0], *(way[1:] for way in ways[1:])]), sigmas)


def test_lcm_asks_a_given_noise_sampler():
    ways, asked = [uniform_sigmas(4)], []
    x = latent((1, 6, 8), torch.float64, ways[0][0])
    with make_run(x, ways, denoise, targets="bird") as run:
        out = run.sample(SAMPLERS["sample_lcm"], x, noise_sampler=lambda *levels: (asked.append(levels), x)[1])
    assert asked == [(ways[0][i], ways[0][i + 1]) for i in range(3)]
    assert torch.equal(out, scalar_samplers.lcm(denoise, x, ways[0], lambda _: x))


@pytest.mark.parametrize(("steps", "times"), [(20, 1), (35, 1), (36, 2), (150, 2)])
def test_restart_rises_again_and_makes_as_many_steps_as_were_asked_for(steps, times):
    options = {"sigmas": uniform_sigmas(steps, torch.float32)}
    ways, _ = SAMPLERS["restart_sampler"].descents(options, torch.device("cpu"))
    assert len(ways) == times + 2
    assert sum(len(way) - 1 for way in ways) == steps
    first, *again, last = ways
    assert all(way.diff().max() < 0 for way in ways)
    assert torch.isclose(first[0], uniform_sigmas(steps, torch.float32)[0])
    assert last[-1] == 0
    assert abs(last[0] - 0.1) < 0.05
    for way in again:
        assert abs(way[0] - 2) < 0.3
        assert torch.isclose(way[-1], last[0])


@pytest.mark.parametrize("n", range(1, 20))
def test_dpm_fast_has_as_many_evaluations_as_were_asked_for(n):
    options = {"n": n, "sigma_min": 0.03, "sigma_max": 14.6}
    (way,), rest = SAMPLERS["sample_dpm_fast"].descents(options, torch.device("cpu"))
    assert sum(rest["orders"]) == n
    assert len(way) == len(rest["times"]) == len(rest["orders"]) + 1
    assert set(options) == {"n", "sigma_min", "sigma_max"}, "the host's own options were changed"
    torch.testing.assert_close(way[[0, -1]], torch.tensor([14.6, 0.03]))


@pytest.mark.parametrize("sampler", ["sample_dpmpp_2m", "sample_dpmpp_2m_sde", "sample_dpmpp_3m_sde"])
@pytest.mark.parametrize(("steps", "spread"), [(150, 3e-7), (40, 0.0)])
def test_levels_that_lie_too_close_to_tell_apart_give_no_nan(sampler, steps, spread):
    """A WebUI's Beta schedule of low settings is so dense at its ends, or repeats a level."""
    dense = torch.linspace(0, 1, steps) ** 12
    sigmas = torch.cat([14.6 * (1 - spread * torch.arange(4)), 14 * (1 - dense[4:-1]) + 0.03, torch.zeros(1)])
    x = torch.randn(1, 4, 4, 6, generator=torch.Generator().manual_seed(1)) * sigmas[0]
    options = {"noise_sampler": lambda *_: torch.zeros_like(x)} if "sde" in sampler else {}
    with make_run(x, sigmas.float(), lambda x, s: (x / (1 + s**2)).to(x), targets="cat", concavity=1.0) as run:
        out = run.sample(SAMPLERS[sampler], x, **options)
    assert out.isfinite().all()
