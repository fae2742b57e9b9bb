"""Every sampler on a sigma map against the host's own on each pixel's own sigmas."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field

import k_diffusion.sampling as k
import pytest
import scalar_samplers
import torch
from stand_ins import LEVELS, Noise, make_run, uniform_sigmas
from torch import Tensor

from asyndm_lib.hosts.own_scalars import lms_coefficients
from asyndm_lib.samplers import LABELS, SAMPLERS, descents

SIZES = [(1, 6, 8), (2, 7, 5)]
PRECISIONS = [(torch.float32, 1e-5), (torch.float64, 1e-10)]
CHURN = {"s_churn": 8.0, "s_tmin": 0.5, "s_tmax": 12.0, "s_noise": 1.003}
EXTENT = (0.03, 14.6)
SETTINGS = {
    "lagged": {"targets": "cat, dog"},
    "fresh": {"targets": "cat, dog:0.9", "mask_timing": "fresh"},
    "static": {"targets": "dog", "mask_timing": "static", "concavity": 1.0},
    "whole": {"whole_picture": True, "concavity": 0.8},
    "piecewise": {"targets": "cat, dog", "curve": "piecewise linear", "concavity": 0.7},
    "exponential": {"targets": "cat, dog:0.2", "curve": "exponential", "mask_timing": "fresh"},
}


@dataclass(frozen=True)
class Case:
    """A sampler function of a host with options. ``loose``: how many times the rounding of its formulas is larger."""

    name: str
    options: dict = field(default_factory=dict)
    loose: float = 1.0

    @property
    def own(self) -> bool:
        """Whether the WebUI, not k-diffusion, has the scalar one."""
        return not hasattr(k, self.name)

    @property
    def scaled(self) -> bool:
        return self.name in ("ddim", "ddim_cfgpp", "plms", "unipc")

    @property
    def brownian(self) -> bool:
        return "noise_sampler" in inspect.signature(SAMPLERS[self.name]).parameters and self.name.endswith("sde")


CASES = {
    "Euler": Case("sample_euler"),
    "Euler, churn": Case("sample_euler", CHURN),
    "Euler a": Case("sample_euler_ancestral"),
    "Euler a, eta": Case("sample_euler_ancestral", {"eta": 0.4, "s_noise": 1.01}),
    "Euler a, eta 0": Case("sample_euler_ancestral", {"eta": 0.0}),
    "Heun": Case("sample_heun"),
    "Heun, churn": Case("sample_heun", CHURN),
    "DPM2": Case("sample_dpm_2"),
    "DPM2, churn": Case("sample_dpm_2", CHURN),
    "DPM2 a": Case("sample_dpm_2_ancestral"),
    "DPM2 a, eta": Case("sample_dpm_2_ancestral", {"eta": 0.4, "s_noise": 1.01}),
    "DPM2 a, eta 0": Case("sample_dpm_2_ancestral", {"eta": 0.0}),
    "LMS": Case("sample_lms", loose=3),
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
}
K_DIFFUSION = [name for name, case in CASES.items() if not case.own]


def denoise(x: Tensor, sigma: Tensor) -> Tensor:
    """A denoiser that treats every pixel on its own, and not linearly."""
    return torch.tanh(x / (1 + sigma)) + 0.1 * torch.sin(3 * x / (sigma**2 + 1) ** 0.5)


def unconditional(x: Tensor, prediction: Tensor) -> Tensor:
    return 0.8 * prediction + 0.1 * torch.cos(x)


def latent(size: tuple, dtype: torch.dtype, scale: Tensor | float = 1.0) -> Tensor:
    batch, height, width = size
    random = torch.Generator().manual_seed(5)
    return torch.randn(batch, 4, height, width, generator=random, dtype=torch.float64).to(dtype) * scale


def ways_down(case: Case, steps: int, dtype: torch.dtype) -> tuple[list[Tensor], dict]:
    """The descents of a run of ``steps``, and the options that are left for the sampler."""
    options = dict(case.options)
    if case.name == "sample_dpm_fast":
        low, high = torch.tensor(EXTENT, dtype=dtype)
        options |= {"n": 2 * steps, "sigma_min": low, "sigma_max": high}
    elif case.name == "restart_sampler":
        options |= {"sigmas": uniform_sigmas(steps, dtype), "restart_list": {0.5: [4, 2, 3.0]}}
    elif case.scaled:
        options["sigmas"] = LEVELS.t_to_sigma(torch.linspace(999, 1, steps + 1, dtype=torch.float64)).to(dtype)
    else:
        options["sigmas"] = uniform_sigmas(steps, dtype)
    ways = [way.to(dtype) for way in descents(case.name, options, torch.device("cpu"))]
    if "times" in options:  # of single precision in k-diffusion too
        options["times"] = options["times"].to(dtype)
        ways = [torch.stack([(-t).exp() for t in options["times"]])]
    return ways, options


def on_maps(case: Case, x: Tensor, ways: list[Tensor], options: dict, **settings) -> tuple[Tensor, Tensor]:
    """The result, and the sigma of every pixel at every evaluation ``[N, B, 1, H, W]``."""
    with make_run(x, ways, denoise, **settings) as run:
        run.unconditional_of = unconditional
        if case.brownian:
            options = {**options, "noise_sampler": lambda *_: run.host.randn_like(x)}
        options.pop("restart_list", None)
        out = run.sample(SAMPLERS[case.name], x, **options)
    return out, torch.stack(run.seen)


@pytest.fixture
def hosts_own(monkeypatch):
    """The host's own sampler, with the numbers that :class:`Noise` draws."""

    def sample(case: Case, x: Tensor, ways: list[Tensor], options: dict) -> Tensor:
        noise = Noise()
        if case.own:
            more = {"unconditional": unconditional} if case.name == "ddim_cfgpp" else {}
            given = ways if case.name == "restart_sampler" else ways[0]
            kept = {key: value for key, value in case.options.items() if key != "restart_list"}
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
        return getattr(k, case.name)(model, x, disable=True, **case.options, **more)

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
        mask = (maps == sequence.view(-1, 1, 1, 1, 1)).all(dim=0).expand_as(x)
        own = sequence.split([len(way) - 1 for way in ways])
        own = [torch.cat([levels, way[-1:]]) for levels, way in zip(own, ways, strict=True)]
        # A pixel's own t are those of its own sigmas.
        scalar = hosts_own(case, x, own, {key: value for key, value in options.items() if key != "times"})
        torch.testing.assert_close(out[mask], scalar[mask], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("settings", [{"targets": "cat, dog"}, {"whole_picture": True}], ids=["targets", "whole"])
def test_a_curve_that_holds_pixels_still(name, settings):
    """With k = 1 the piecewise linear clock stands at first: no formula may divide by a step of nothing."""
    case = CASES[name]
    ways, options = ways_down(case, 9, torch.float32)
    x = latent((1, 6, 8), torch.float32, 1.0 if case.scaled else ways[0][0])
    out, maps = on_maps(case, x, ways, options, curve="piecewise linear", concavity=1.0, **settings)
    assert (maps[0] == maps[1]).any(), "no pixel stood still"
    assert out.isfinite().all()
    assert out.abs().max() < 50


@pytest.mark.parametrize("name", K_DIFFUSION)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("steps", [1, 2, 3, 25])
def test_without_related_pixels_it_is_the_hosts_own_to_the_bit(name, dtype, steps, hosts_own):
    case = CASES[name]
    if steps == 1 and case.name in ("sample_dpmpp_2m_sde", "sample_dpmpp_3m_sde"):
        pytest.skip("k-diffusion's own cannot make a single step")
    ways, options = ways_down(case, steps, dtype)
    if case.name == "sample_lms":
        options["coefficients"] = lms_coefficients(ways[0])
    x = latent((2, 9, 7), dtype, ways[0][0])
    out, _ = on_maps(case, x, ways, options, targets="bird")
    assert torch.equal(out, hosts_own(case, x, ways, options))


def test_every_sampler_is_tried():
    assert {case.name for case in CASES.values()} == set(SAMPLERS) == {name for name, _ in LABELS.values()}


def test_restart_goes_by_heuns_steps_alone_when_there_are_few():
    options = {"sigmas": uniform_sigmas(19, torch.float32)}
    (way,) = descents("restart_sampler", options, torch.device("cpu"))
    assert torch.equal(way, uniform_sigmas(19, torch.float32))


@pytest.mark.parametrize(("steps", "times"), [(20, 1), (35, 1), (36, 2), (150, 2)])
def test_restart_rises_again_and_makes_as_many_steps_as_were_asked_for(steps, times):
    ways = descents("restart_sampler", {"sigmas": uniform_sigmas(steps, torch.float32)}, torch.device("cpu"))
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
    (way,) = descents("sample_dpm_fast", options, torch.device("cpu"))
    assert sum(options["orders"]) == n
    assert len(way) == len(options["times"]) == len(options["orders"]) + 1
    torch.testing.assert_close(way[[0, -1]], torch.tensor([14.6, 0.03]))
