"""Between sigma and timestep in Forge and its relatives: there and back, whatever the model is
told."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import pytest
import torch
from stand_ins import LEVELS, alphas_cumprod
from torch import Tensor

SHIFT = 3.0


class Discrete:
    """As ComfyUI's ``ModelSamplingDiscrete`` and Forge's ``Prediction``."""

    prediction_type = "epsilon"

    def __init__(self):
        alphas = alphas_cumprod(torch.float32)
        self.sigmas = ((1 - alphas) / alphas) ** 0.5
        self.log_sigmas = self.sigmas.log()

    def timestep(self, sigma: Tensor) -> Tensor:
        return (sigma.log() - self.log_sigmas[:, None]).abs().argmin(dim=0).view(sigma.shape)

    def sigma(self, timestep: Tensor) -> Tensor:
        low = timestep.floor().long()
        return torch.lerp(self.log_sigmas[low], self.log_sigmas[timestep.ceil().long()], timestep.frac()).exp()


class Distilled(Discrete):
    """As ComfyUI's ``ModelSamplingDiscreteDistilled``, which knows one level of every 20."""

    def __init__(self):
        super().__init__()
        self.sigmas = self.sigmas[19::20]
        self.log_sigmas = self.sigmas.log()

    def timestep(self, sigma: Tensor) -> Tensor:
        return super().timestep(sigma) * 20 + 19

    def sigma(self, timestep: Tensor) -> Tensor:
        return super().sigma((timestep - 19) / 20)


class Continuous:
    """As ``ModelSamplingContinuousEDM``."""

    prediction_type = "v_prediction"
    sigmas = torch.linspace(0.002, 120.0, 1000).log().exp()

    def timestep(self, sigma: Tensor) -> Tensor:
        return 0.25 * sigma.log()

    def sigma(self, timestep: Tensor) -> Tensor:
        return (timestep / 0.25).exp()


class Flow:
    """As ``PredictionDiscreteFlow`` of Stable Diffusion 3."""

    prediction_type = "const"

    def __init__(self):
        self.sigmas = self.sigma(torch.arange(1, 1001))

    def timestep(self, sigma: Tensor) -> Tensor:
        return sigma * 1000

    def sigma(self, timestep: Tensor) -> Tensor:
        t = timestep / 1000
        return SHIFT * t / (1 + (SHIFT - 1) * t)


KINDS = (Discrete, Distilled, Continuous, Flow)


@pytest.fixture
def maps_of(monkeypatch):
    """The function as in a WebUI, without a WebUI."""
    modules = ModuleType("modules")
    modules.shared = None
    monkeypatch.setitem(sys.modules, "modules", modules)
    names = [f"asyndm_lib.hosts.{name}" for name in ("common.noise_levels", "common.flows", "forge_family.predictors")]
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    made = importlib.import_module(names[-1]).maps_of
    for name in names:
        monkeypatch.setitem(sys.modules, name, sys.modules[name])  # gone afterwards
    return made


def between(predictor: object) -> Tensor:
    """Sigmas at the model's levels and between them."""
    return torch.linspace(predictor.sigmas[0].log(), predictor.sigmas[-1].log(), 3001).exp()


@pytest.mark.parametrize("kind", KINDS)
def test_there_and_back_is_the_same_sigma_between_the_models_levels_too(kind, maps_of):
    predictor = kind()
    sigmas, maps = between(predictor), maps_of(predictor)
    torch.testing.assert_close(maps.t_to_sigma(maps.sigma_to_t(sigmas)).float(), sigmas, rtol=2e-5, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_model_is_told_what_its_predictor_says(kind, maps_of):
    predictor = kind()
    sigmas, maps = between(predictor), maps_of(predictor)
    assert torch.equal((maps.told or maps.sigma_to_t)(sigmas), predictor.timestep(sigmas))


@pytest.mark.parametrize("kind", [Discrete, Continuous])
def test_levels_are_those_of_the_predictor(kind, maps_of):
    predictor = kind()
    timesteps = torch.linspace(*predictor.timestep(predictor.sigmas[[0, -1]]), 3001)
    expected = predictor.sigma(timesteps)
    torch.testing.assert_close(maps_of(predictor).t_to_sigma(timesteps).float(), expected, rtol=2e-5, atol=0)


@pytest.mark.parametrize("told", [True, False])
def test_a_schedule_is_that_of_continuous_timesteps_though_the_model_is_told_whole_ones(told, maps_of):
    from asyndm_lib.clock.schedule import Schedule

    progress = torch.linspace(0, 5, 101)
    sigmas = torch.logspace(1.1, -1.4, 6, dtype=torch.float64)
    continuous, here = Schedule(sigmas, LEVELS.sigma_to_t, LEVELS.t_to_sigma), Schedule(sigmas, *maps_of(Discrete()))
    if told:
        asked = here.timestep(here.sigma(progress).float())
        assert not asked.is_floating_point()
        assert (asked - continuous.timestep(continuous.sigma(progress))).abs().max() < 0.51
    else:
        torch.testing.assert_close(here.sigma(progress), continuous.sigma(progress), rtol=1e-5, atol=0)
