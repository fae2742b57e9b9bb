"""Devices that have no double precision: Apple's, Intel's and DirectML's GPUs."""

from __future__ import annotations

import importlib
import itertools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from k_diffusion import external
from k_diffusion.sampling import BrownianTreeNoiseSampler
from picture_digests import ON, REQUEST
from single_precision import DEVICE, OnDevice, SinglePrecision, put
from stand_ins import alphas_cumprod, tiny_unet
from torch import Tensor

from asyndm_lib.clock.cells import Cells
from asyndm_lib.clock.clocks import Mask, StateClock
from asyndm_lib.clock.curves import CURVES
from asyndm_lib.clock.schedule import NoiseLevels, on
from asyndm_lib.demo import MODEL
from asyndm_lib.errors import TooFewSteps, Unsupported
from asyndm_lib.hosts.standalone import embedded
from asyndm_lib.hosts.standalone.embedded import Embedded
from asyndm_lib.hosts.standalone.ldm_checkpoint import load
from asyndm_lib.hosts.standalone.text_encoders import encode
from asyndm_lib.masks.target_masks import TIMINGS
from asyndm_lib.run.walk import Walk
from asyndm_lib.samplers.table import LABELS

SMALL = replace(REQUEST, steps=3, width=64, height=64)


@pytest.fixture(scope="module")
def hosts() -> Iterator[tuple[Embedded, Embedded]]:
    """The embedded host with a tiny UNet, on the CPU and on the device.

    Its texts and its Brownian motion are made on the CPU; they are not ours.
    """

    def model() -> object:
        checkpoint = load(MODEL, None, torch.device("cpu"))
        width = checkpoint.diffusion_model.middle_block[1].transformer_blocks[0].attn2.to_k.in_features
        return replace(checkpoint, diffusion_model=tiny_unet(context_dim=width))

    there = model()
    on_device = {"diffusion_model": put(there.diffusion_model), "alphas_cumprod": OnDevice(there.alphas_cumprod)}
    there = replace(there, **on_device, device=DEVICE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedded, "encode", lambda text, prompts, device: encode(text, prompts, CPU).to(device))
        patch.setattr(embedded, "BrownianTreeNoiseSampler", _motion)
        with SinglePrecision():
            here = Embedded(there)
        yield Embedded(model()), here


CPU = torch.device("cpu")


def _motion(x: Tensor, *extent: Tensor, seed: list[int]) -> Callable[[Tensor, Tensor], Tensor]:
    tree = BrownianTreeNoiseSampler(x.cpu(), *(sigma.cpu() for sigma in extent), seed=seed)
    return lambda sigma, sigma_next: tree(sigma.cpu(), sigma_next.cpu()).to(x.device)


@contextmanager
def refused(what: str) -> Iterator[None]:
    with SinglePrecision(), pytest.raises((TypeError, RuntimeError), match=what):
        yield


def test_the_device_has_no_double_precision_and_does_not_mix():
    double = torch.ones(2, dtype=torch.float64)
    with SinglePrecision():
        single = torch.ones(2, device=DEVICE)
        assert (single * double[0]).dtype == torch.float32
        assert single[None].device == (single + 1).device == torch.tensor([1.0], device=DEVICE).device == DEVICE
        assert torch.equal(single.cpu(), torch.ones(2))
    for made in (single.double, lambda: torch.ones(2, dtype=torch.float64, device=DEVICE), lambda: double.to(DEVICE)):
        with refused("float64"):
            made()
    with refused("before it was rounded"):
        double.to(DEVICE, torch.float32)
    with refused("same device"):
        single + torch.ones(2)


@pytest.mark.parametrize("label", LABELS)
def test_every_sampler_curve_and_timing_makes_the_pictures_of_the_cpu(label, hosts):
    request = replace(SMALL, sampler=label)
    cases = [replace(ON, curve=curve, mask_timing=timing) for curve, timing in itertools.product(CURVES, TIMINGS)]
    cases += [replace(ON, whole_picture=True), replace(ON, targets=""), replace(ON, targets="cat:0.9, basketball:0.2")]
    for settings in cases:
        expected = hosts[0].sample(request, settings)
        with SinglePrecision():
            made = hosts[1].sample(request, settings)
        assert made.device == DEVICE
        torch.testing.assert_close(made.own, expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())


class Schedule:
    """A stand-in for the schedule of a WebUI's UniPC, over ``alphas_cumprod``."""

    T = 1.0

    def __init__(self, kind: str, alphas_cumprod: Tensor):
        self.total_N, self._logs = len(alphas_cumprod), alphas_cumprod.log() / 2

    def _log_alpha(self, t: Tensor) -> Tensor:
        place = (t * self.total_N - 1).clamp(0, self.total_N - 1)
        low = place.long().clamp(max=self.total_N - 2)
        logs = self._logs.to(t.device)
        return torch.lerp(logs[low], logs[low + 1], (place - low).to(logs))

    def marginal_alpha(self, t: Tensor) -> Tensor:
        return self._log_alpha(t).exp()

    def marginal_std(self, t: Tensor) -> Tensor:
        return (1 - self.marginal_alpha(t) ** 2).sqrt()

    def marginal_lambda(self, t: Tensor) -> Tensor:
        return self._log_alpha(t) - self.marginal_std(t).log()

    def inverse_lambda(self, lambdas: Tensor) -> Tensor:
        times = torch.arange(1, self.total_N + 1, dtype=self._logs.dtype) / self.total_N
        own = self.marginal_lambda(times)
        high = torch.searchsorted(-own, -lambdas).clamp(1, self.total_N - 1)
        share = (lambdas - own[high - 1]) / (own[high] - own[high - 1])
        return torch.lerp(times[high - 1], times[high], share)


@pytest.fixture
def noise_levels(monkeypatch):
    """The module as in a WebUI, without a WebUI."""
    steps = {"get_time_steps": lambda self, kind, start, end, n, device: torch.linspace(1, end, n + 1).to(device)}
    unipc = SimpleNamespace(NoiseScheduleVP=Schedule, UniPC=type("UniPC", (), {"__init__": lambda *_: None, **steps}))
    opts = SimpleNamespace(uni_pc_order=3, uni_pc_variant="bh1", uni_pc_skip_type="x", uni_pc_lower_order_final=True)
    for name, holds in {
        "modules": {"shared": SimpleNamespace(opts=opts)},
        "modules.models": {},
        "modules.models.diffusion": {},
        "modules.models.diffusion.uni_pc": {"uni_pc": unipc},
    }.items():
        module = ModuleType(name)
        vars(module).update(holds)
        monkeypatch.setitem(sys.modules, name, module)
    name = "asyndm_lib.hosts.common.noise_levels"
    monkeypatch.delitem(sys.modules, name, raising=False)
    module = importlib.import_module(name)
    monkeypatch.setitem(sys.modules, name, module)  # gone afterwards
    return module


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("label", ["Euler", "LMS", "DPM fast", "Restart", "DDIM", "PLMS", "UniPC"])
def test_a_webuis_noise_levels_are_those_of_the_cpu(label, told, noise_levels):
    """Those of DDIM and its like are known in double precision."""
    sampler, table = LABELS[label][0], alphas_cumprod(torch.float32)
    denoiser = external.DiscreteEpsDDPMDenoiser(None, table, quantize=False)
    if sampler.levels == "timesteps":
        options = {"timesteps": torch.arange(1, 1000, 249), **({"eta": 1.0} if label == "DDIM" else {})}
    elif sampler.levels == "range":
        options = {"n": 5, "sigma_min": denoiser.sigma_min, "sigma_max": denoiser.sigma_max}
    else:
        options = {"sigmas": denoiser.get_sigmas(6)}

    def found(there: Callable[[Any], Any]) -> list[Tensor]:
        x, own = there(torch.ones(2, 4, 3, 3)), there(table)
        model = SimpleNamespace(inner_model=SimpleNamespace(inner_model=SimpleNamespace(alphas_cumprod=own)))
        maps, timestep = NoiseLevels(own), None
        if told:
            timestep = on(own, lambda sigma: maps.sigma_to_t(sigma).round())
        given = {name: there(value) for name, value in options.items()}
        levels = noise_levels.levels_of(
            sampler, model, x, given, lambda: (on(own, maps.sigma_to_t), on(own, maps.t_to_sigma)), None, timestep
        )
        cells, all = Cells(2, 3, 3, 1, x.device), []
        for descent in levels.descents:
            clock = StateClock(descent.schedule.advances, cells.shape, "piecewise linear", x.device)
            walk = Walk(descent, clock, cells, torch.float32)
            some = torch.tensor([[[[True, False, True]] * 3]] * 2, device=x.device)
            concavity = torch.full(some.shape, 0.4, device=x.device)
            sigma = walk.advance(Mask(some, concavity))
            inputs = levels.input(descent.scalars[0]), levels.unit(sigma.map), walk.timesteps(sigma.map)
            all += [sigma.map, sigma.timesteps, *inputs, *descent.scalars]
        return [getattr(one, "own", one) for one in all]

    expected = found(lambda value: value)
    with SinglePrecision():
        made = found(lambda value: OnDevice(value) if isinstance(value, Tensor) else value)
    assert len(made) == len(expected) > 4
    for one, other in zip(made, expected, strict=True):
        torch.testing.assert_close(one, other.to(one.dtype), rtol=1e-5, atol=1e-3)


def test_a_model_is_told_the_timestep_that_it_knows_the_samplers_level_by(noise_levels):
    """Forge Classic rescales the sampler's levels for zero terminal SNR, and not the model's."""
    own = NoiseLevels(alphas_cumprod(torch.float32))
    roots = alphas_cumprod(torch.float64).sqrt()
    rescaled = ((roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])) ** 2
    rescaled[-1] = 5e-8
    denoiser = SimpleNamespace(alphas_cumprod=rescaled.float())
    model = SimpleNamespace(inner_model=SimpleNamespace(inner_model=denoiser))
    options = {"timesteps": torch.arange(1, 1000, 249), "eta": 1.0}

    def timestep(sigma: Tensor) -> Tensor:
        return own.sigma_to_t(sigma).round()

    levels = noise_levels.levels_of(LABELS["DDIM"][0], model, torch.ones(1, 4, 3, 3), options, None, None, timestep)
    (descent,) = levels.descents
    for at, sigma in zip((997, 748, 499, 250), descent.scalars, strict=False):
        level = ((1 - rescaled[at]) / rescaled[at]).sqrt()
        torch.testing.assert_close(sigma.double(), level, rtol=1e-4, atol=0)
        assert descent.schedule.timestep(sigma).item() == timestep(level).item()
        assert descent.schedule.timestep(sigma).item() != at


@pytest.mark.parametrize("label", ["Euler", "Restart", "DDIM", "PLMS", "UniPC"])
def test_a_schedule_of_no_step_is_told_so(label, noise_levels):
    """Only UniPC makes a step of a single timestep."""
    sampler, table = LABELS[label][0], alphas_cumprod(torch.float32)
    model = SimpleNamespace(inner_model=SimpleNamespace(inner_model=SimpleNamespace(alphas_cumprod=table)))
    knots = {"timesteps": torch.tensor([1])} if sampler.levels == "timesteps" else {"sigmas": torch.tensor([0.03])}

    def made() -> int:
        maps = NoiseLevels(table)
        levels = noise_levels.levels_of(
            sampler, model, torch.ones(1, 4, 3, 3), knots, lambda: (maps.sigma_to_t, maps.t_to_sigma), None
        )
        return levels.descents[0].schedule.evaluations

    if label == "UniPC":
        with pytest.raises(Unsupported, match="order, 3, is more than the number of its steps, 1; make more steps"):
            made()
        noise_levels.shared.opts.uni_pc_order = 1
        assert made() == 1
        knots["timesteps"] = knots["timesteps"][:0]
        with pytest.raises(TooFewSteps, match="there is no step to make"):
            made()
    else:
        with pytest.raises(TooFewSteps, match="there is no step to make"):
            made()
