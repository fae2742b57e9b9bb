"""Every sampler on a sigma map against the host's own on each pixel's own sigmas."""

from __future__ import annotations

import k_diffusion.sampling as k
import pytest
import torch
from stand_ins import Noise, make_run, uniform_sigmas
from torch import Tensor

from asyndm_lib.samplers import SAMPLERS

SIZES = [(1, 6, 8), (2, 7, 5)]
PRECISIONS = [(torch.float32, 1e-5), (torch.float64, 1e-10)]
CASES = {
    "sample_euler": {},
    "sample_euler s_churn": {"s_churn": 8.0, "s_tmin": 0.5, "s_tmax": 12.0, "s_noise": 1.003},
    "sample_euler_ancestral": {},
    "sample_euler_ancestral eta": {"eta": 0.4, "s_noise": 1.01},
    "sample_euler_ancestral eta 0": {"eta": 0.0},
    "sample_dpmpp_2m": {},
}
SETTINGS = {
    "lagged": {"targets": "cat, dog"},
    "fresh": {"targets": "cat, dog:0.9", "mask_timing": "fresh"},
    "static": {"targets": "dog", "mask_timing": "static", "concavity": 1.0},
    "whole": {"whole_picture": True, "concavity": 0.8},
    "piecewise": {"targets": "cat, dog", "curve": "piecewise linear", "concavity": 0.7},
    "exponential": {"targets": "cat, dog:0.2", "curve": "exponential", "mask_timing": "fresh"},
}


def denoise(x: Tensor, sigma: Tensor) -> Tensor:
    """A denoiser that treats every pixel on its own, and not linearly."""
    return torch.tanh(x / (1 + sigma)) + 0.1 * torch.sin(3 * x / (sigma**2 + 1) ** 0.5)


def latent(batch: int, height: int, width: int, dtype: torch.dtype, sigma: Tensor) -> Tensor:
    return torch.randn(batch, 4, height, width, generator=torch.Generator().manual_seed(5), dtype=torch.float64).to(
        dtype
    ) * sigma.to(dtype)


def on_maps(name: str, x: Tensor, sigmas: Tensor, options: dict, **settings) -> tuple[Tensor, Tensor]:
    """The result, and the sigma of every pixel at every evaluation ``[N + 1, B, 1, H, W]``."""
    with make_run(x, sigmas, denoise, **settings) as run:
        out = run.sample(SAMPLERS[name], x, **options)
    return out, torch.stack([*run.seen, torch.zeros_like(run.seen[0])])


@pytest.fixture
def k_noise(monkeypatch):
    """k-diffusion drawing the numbers that :class:`Noise` draws."""

    class Torch:
        def __init__(self, noise: Noise):
            self.randn_like = noise.like

        def __getattr__(self, name: str):
            return getattr(torch, name)

    return lambda: monkeypatch.setattr(k, "torch", Torch(Noise()))


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("size", SIZES)
def test_equals_the_scalar_sampler_pixel_by_pixel(case, settings, dtype, tolerance, size, k_noise):
    name, options = case.split()[0], CASES[case]
    sigmas = uniform_sigmas(7, dtype)
    x = latent(*size, dtype, sigmas[0])
    out, maps = on_maps(name, x, sigmas, options, **SETTINGS[settings])
    sequences = torch.unique(maps.flatten(1).T, dim=0)
    assert len(sequences) > 1 or settings == "whole", "every pixel had the same sigmas"
    for sequence in sequences:
        mask = (maps == sequence.view(-1, 1, 1, 1, 1)).all(dim=0).expand_as(x)
        k_noise()
        scalar = _scalar(name, x, sequence, options)
        torch.testing.assert_close(out[mask], scalar[mask], rtol=tolerance, atol=tolerance)


def _scalar(name: str, x: Tensor, sigmas: Tensor, options: dict) -> Tensor:
    model = lambda x, sigma: denoise(x, sigma.view(-1, 1, 1, 1))  # noqa: E731
    return getattr(k, name)(model, x, sigmas, disable=True, **options)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("steps", [1, 2, 25])
def test_without_related_pixels_it_is_the_hosts_own_to_the_bit(case, dtype, steps, k_noise):
    name, options = case.split()[0], CASES[case]
    sigmas = uniform_sigmas(steps, dtype)
    x = latent(2, 9, 7, dtype, sigmas[0])
    out, _ = on_maps(name, x, sigmas, options, targets="bird")
    k_noise()
    assert torch.equal(out, _scalar(name, x, sigmas, options))
