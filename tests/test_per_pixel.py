"""What the hosts' own formulas give with a noise level for every pixel, of latents with and without
a dimension for their frame."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from asyndm_lib.hosts.common.inpainting import blending
from asyndm_lib.hosts.common.per_pixel import at_single_pixels, scalings
from asyndm_lib.hosts.forge_family.preconditioning import preconditioned
from asyndm_lib.run.model_call import Rows

SHAPES = {"plain": (2, 3, 5, 4), "with a frame": (2, 3, 1, 5, 4)}


class Predictor:
    """A flow's formulas for a sigma of each row, as Forge has them."""

    def calculate_input(self, sigma: Tensor, x: Tensor) -> Tensor:
        return x

    def calculate_denoised(self, sigma: Tensor, output: Tensor, x: Tensor) -> Tensor:
        return x - output * sigma.view(sigma.shape[:1] + (1,) * (x.ndim - 1))

    def noise_scaling(self, sigma: Tensor, noise: Tensor, picture: Tensor) -> Tensor:
        return sigma * noise + (1.0 - sigma) * picture


def levels(shape: tuple) -> Rows:
    random = torch.Generator().manual_seed(1)
    sigma = torch.rand(2, 1, *shape[2:], generator=random) * 0.5
    return Rows(sigma, torch.rand(sigma.shape, generator=random) < 0.4)


def latents(shape: tuple) -> list[Tensor]:
    random = torch.Generator().manual_seed(2)
    return [torch.randn(shape, generator=random) for _ in range(2)]


@pytest.fixture(params=SHAPES)
def shape(request) -> tuple:
    return SHAPES[request.param]


def test_a_formula_of_rows_holds_at_single_pixels(shape):
    here, (x, output) = levels(shape), latents(shape)
    found = at_single_pixels(Predictor().calculate_denoised, here.sigma, output, x)
    torch.testing.assert_close(found, x - here.sigma * output)


def test_a_predictor_scales_lagging_pixels_by_their_own_level(shape):
    here, (x, output), predictor = levels(shape), latents(shape), Predictor()
    own = torch.tensor([0.7, 0.7])
    sigma = torch.where(here.lagging, here.sigma, 0.7)
    both = Rows(torch.cat([here.sigma] * 2), torch.cat([here.lagging] * 2))
    with preconditioned(predictor, SimpleNamespace(evaluating=here), lambda sigma, shape: both):
        twice = predictor.calculate_denoised(own.repeat(2), torch.cat([output] * 2), torch.cat([x] * 2))
        noised = predictor.noise_scaling(own[:1].view(-1, *[1] * (x.dim() - 1)), output, x)
    torch.testing.assert_close(twice, torch.cat([x - sigma * output] * 2))
    torch.testing.assert_close(noised, sigma * output + (1 - sigma) * x)


def test_a_k_diffusion_denoiser_scales_lagging_pixels_by_their_own_level(shape):
    here = levels(shape)
    denoiser = SimpleNamespace(get_scalings=lambda sigma: (-sigma, 1 / (sigma**2 + 1) ** 0.5))
    own = torch.tensor([0.7, 0.9])
    with scalings(denoiser, here):
        c_out, c_in = denoiser.get_scalings(own)
    sigma = torch.where(here.lagging, here.sigma, own.view(-1, *[1] * (len(shape) - 1)))
    assert torch.equal(c_out, -sigma)
    assert torch.equal(c_in, 1 / (sigma**2 + 1) ** 0.5)


def test_soft_inpainting_is_told_the_level_of_every_pixel(shape):
    here, told = levels(shape), []
    scripts = SimpleNamespace(on_mask_blend=lambda p, args: told.append(args.sigma))
    args = SimpleNamespace(sigma=torch.tensor([0.7, 0.9]))
    with blending(scripts, SimpleNamespace(evaluating=here), lambda map: map):
        scripts.on_mask_blend(None, args)
    own = torch.tensor([0.7, 0.9]).view(-1, *[1] * (len(shape) - 1))
    assert torch.equal(told[0][0], torch.where(here.lagging, here.sigma, own))
