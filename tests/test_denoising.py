"""The denoiser of AUTOMATIC1111's WebUI by noise levels per pixel, also where extensions cut it."""

from __future__ import annotations

import importlib
import sys
from itertools import pairwise
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from k_diffusion.external import CompVisDenoiser, CompVisVDenoiser
from stand_ins import LEVELS, Noise, alphas_cumprod, hooks_on, tiny_unet, uniform_sigmas
from torch import Tensor, nn

import asyndm_lib.hosts
from asyndm_lib.clock.cells import Box, Cells
from asyndm_lib.clock.clocks import Mask
from asyndm_lib.clock.schedule import Schedule
from asyndm_lib.errors import TakenApart
from asyndm_lib.hosts.common.pieces import Piece, Pieces
from asyndm_lib.masks.source import FixedMask
from asyndm_lib.run.host import Descent, Host
from asyndm_lib.run.run import Run
from asyndm_lib.samplers.table import SAMPLERS
from asyndm_lib.settings.settings import Settings

SIGMAS = uniform_sigmas(5, torch.float32)
LEFT, RIGHT = Box(0, 0, 8, 8), Box(0, 8, 8, 8)
ROWS = [(0, 0), (1, 0), (0, None), (1, None)]


@pytest.fixture
def denoising(monkeypatch):
    """The module, without the WebUI that its package needs."""
    package = ModuleType("asyndm_lib.hosts.a1111")
    package.__path__ = [f"{asyndm_lib.hosts.__path__[0]}/a1111"]
    monkeypatch.setitem(sys.modules, package.__name__, package)
    monkeypatch.delitem(sys.modules, f"{package.__name__}.denoising", raising=False)
    module = importlib.import_module(f"{package.__name__}.denoising")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # gone afterwards
    return module


class Model(nn.Module):
    """Latent diffusion on the smallest UNet."""

    def __init__(self):
        super().__init__()
        self.unet, self.alphas_cumprod = tiny_unet(), alphas_cumprod(torch.float32)

    def apply_model(self, x: Tensor, t: Tensor, cond: dict) -> Tensor:
        return self.unet(x, timesteps=t, context=cond["c_crossattn"][0])


class Multi:
    """Tiles in the place of the denoiser's forward."""

    def __init__(self, denoiser: Any, boxes: list[Box]):
        self.boxes, self.original = boxes, denoiser.forward
        denoiser.forward = self.forward

    def forward(self, x: Tensor, sigma: Tensor, cond: dict) -> Tensor:
        return _tiled(lambda *call: self.original(*call[:2], cond=call[2]), self.boxes, x, sigma, cond)


class Mixture:
    """Tiles in the place of the model's apply_model."""

    def __init__(self, denoiser: Any, boxes: list[Box]):
        self.boxes, self.model = boxes, denoiser.inner_model
        self.model.apply_model_original = self.model.apply_model
        self.model.apply_model = self.apply_model

    def apply_model(self, x: Tensor, t: Tensor, cond: dict) -> Tensor:
        return _tiled(lambda *call: self.model.apply_model_original(*call), self.boxes, x, t, cond)


class Unseen(Multi):
    """One that keeps the original where nobody looks for it."""

    def __init__(self, denoiser: Any, boxes: list[Box]):
        super().__init__(denoiser, boxes)
        kept = [self.original]
        self.original = lambda *call, **more: kept[0](*call, **more)


def _tiled(original: Any, boxes: list[Box], x: Tensor, level: Tensor, cond: dict) -> Tensor:
    out, times = torch.zeros_like(x), torch.zeros_like(x)
    for box in boxes:
        box.of(out).add_(original(box.of(x), level, cond))
        box.of(times).add_(1)
    return out / times


def sample(denoising: Any, x: Tensor, related: Tensor, take: Any = None, boxes: Any = (), kind: Any = CompVisDenoiser):
    denoiser = kind(Model())
    if take is not None:
        take(denoiser, list(boxes))
    before = dict(vars(denoiser)), dict(vars(denoiser.inner_model))
    text = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(1)).repeat(2, 1, 1)

    def predict(x: Tensor, sigma: Tensor) -> Tensor:
        out = denoiser(x.repeat(2, 1, 1, 1), sigma.expand(4), cond={"c_crossattn": [text]})
        return out[2:] + 3 * (out[:2] - out[2:])

    unet = denoiser.inner_model.unet
    descent = Descent(Schedule(SIGMAS[:-1], LEVELS.sigma_to_t, LEVELS.t_to_sigma), list(SIGMAS))
    host = Host(unet, [descent], predict, lambda: 0, lambda: x, Noise().like, None, iter, Noise().kept, lambda: True)

    def masks(targets: Any, settings: Settings, cells: Cells) -> FixedMask:
        return FixedMask(Mask(related, torch.where(related, 0.8, -1.0).double()), [0.8])

    run = Run(host, Settings(), None, x, masks=masks)
    whole = lambda x, sigma: Piece(ROWS) if run.evaluating else Piece()  # noqa: E731
    of = denoising.Denoising(run, denoiser, denoiser.inner_model, whole, lambda: Pieces((), [1, 1]))
    try:
        with run, of.patched():
            return run.sample(SAMPLERS["sample_euler"], x)
    finally:
        assert hooks_on(unet) == 0
        assert (dict(vars(denoiser)), dict(vars(denoiser.inner_model))) == before


@pytest.fixture
def scene():
    random = torch.Generator().manual_seed(10)
    x = torch.randn(2, 4, 8, 16, generator=random) * SIGMAS[0]
    return SimpleNamespace(x=x, related=torch.rand(2, 1, 8, 16, generator=random) > 0.6)


@pytest.mark.parametrize("kind", [CompVisDenoiser, CompVisVDenoiser])
@pytest.mark.parametrize("take", [Multi, Mixture])
def test_tiles_that_do_not_overlap_are_pictures_of_their_own(take, kind, denoising, scene):
    apart = sample(denoising, scene.x, scene.related, take, [LEFT, RIGHT], kind)
    for box in (LEFT, RIGHT):
        alone = sample(denoising, box.of(scene.x), box.of(scene.related), kind=kind)
        assert (box.of(apart) - alone).abs().max() <= 1e-4 * alone.abs().max()
    still = sample(denoising, scene.x, torch.zeros_like(scene.related), take, [LEFT, RIGHT], kind)
    assert (apart - still).abs().mean() > 0.01 * still.abs().mean(), "nothing is proved where nothing lags"


@pytest.mark.parametrize("take", [Multi, Mixture])
def test_a_tile_that_is_the_whole_picture_is_the_picture_without_tiles(take, denoising, scene):
    whole = sample(denoising, scene.x, scene.related)
    assert torch.equal(sample(denoising, scene.x, scene.related, take, [Box(0, 0, 8, 16)]), whole)


@pytest.mark.parametrize("take", [Multi, Mixture])
def test_where_nothing_lags_the_picture_is_the_extensions_own_to_the_bit(take, denoising, scene):
    boxes = [LEFT, Box(0, 5, 8, 8), RIGHT]
    ours = sample(denoising, scene.x, torch.zeros_like(scene.related), take, boxes)
    denoiser = CompVisDenoiser(Model())
    take(denoiser, boxes)
    text = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(1)).repeat(2, 1, 1)
    x = scene.x
    for sigma, to in pairwise(SIGMAS):
        out = denoiser(x.repeat(2, 1, 1, 1), sigma.expand(4), cond={"c_crossattn": [text]})
        denoised = out[2:] + 3 * (out[:2] - out[2:])
        x = x + (x - denoised) / sigma * (to - sigma)
    assert torch.equal(ours, x)


def test_tiles_of_somebody_who_hides_the_original_are_refused(denoising, scene):
    with pytest.raises(TakenApart):
        sample(denoising, scene.x, scene.related, Unseen, [LEFT, RIGHT])
