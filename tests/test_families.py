"""The seam between the method and a kind of model: a toy transformer through the whole core."""

from __future__ import annotations

import k_diffusion.sampling as k
import numpy as np
import pytest
import torch
from PIL import Image
from stand_ins import LEVELS, Noise, hooks_on, uniform_sigmas, words
from torch import Tensor
from toy_family import FAMILY, SIDE, ToyTransformer

from asyndm_lib import models
from asyndm_lib.clock.cells import Box, Cells
from asyndm_lib.clock.clocks import Mask
from asyndm_lib.clock.curves import CURVES
from asyndm_lib.clock.schedule import Schedule
from asyndm_lib.errors import TakenApart, Unsupported
from asyndm_lib.masks.source import FixedMask
from asyndm_lib.pictures import sheet
from asyndm_lib.pictures.film import Film
from asyndm_lib.prompt.prompt_targets import PromptTargets
from asyndm_lib.prompt.target_list import parse_targets
from asyndm_lib.run.host import Descent, Host
from asyndm_lib.run.model_call import Told
from asyndm_lib.run.run import Run
from asyndm_lib.samplers.table import SAMPLERS
from asyndm_lib.settings.settings import Settings

HEIGHT, WIDTH = 5, 7  # neither divides by the side of a cell
STEPS = 6


@pytest.fixture(autouse=True)
def _known(monkeypatch):
    monkeypatch.setattr(models, "FAMILIES", (*models.FAMILIES, FAMILY))


class ToyHost:
    """A host with the toy for its model, guidance, and one call of the model for both halves."""

    def __init__(self, images: int = 1, frame: bool = False):
        """``frame``: whether the latents have a dimension for their only frame."""
        self.model, self.images = ToyTransformer(), images
        generator = torch.Generator().manual_seed(3)
        self.context = torch.randn(2 * images, 12, 8, generator=generator)
        self.sigmas = uniform_sigmas(STEPS, torch.float32)
        self.x = torch.randn(images, 4, HEIGHT, WIDTH, generator=generator) * self.sigmas[0]
        if frame:
            self.x = self.x.unsqueeze(2)
        self.run: Run | None = None

    def predict(self, x: Tensor, sigma: Tensor) -> Tensor:
        rows = torch.cat([x, x])
        s = sigma.to(x).reshape(-1, *[1] * (x.dim() - 1)).expand(len(rows), *[1] * (x.dim() - 1))
        t = LEVELS.sigma_to_t(s.flatten().double()).float()
        if self.run is None:
            eps = self._eps(rows / (s**2 + 1) ** 0.5, t)
        else:
            names = [(image, part) for part in (0, None) for image in range(self.images)]
            with self.run.rows(names) as here:
                s = torch.where(here.lagging, here.sigma, s)
                eps = self._eps(rows / (s**2 + 1) ** 0.5, t)
        conditional, unconditional = (rows - s * eps).chunk(2)
        return unconditional + 3 * (conditional - unconditional)

    def _eps(self, x: Tensor, t: Tensor) -> Tensor:
        return self.model(x.view(len(x), 4, HEIGHT, WIDTH), t, self.context).view_as(x)

    def start(self, targets: str = "cat", observers=(), masks=None, **settings) -> Run:
        sigmas = self.sigmas
        host = Host(
            model=self.model,
            descents=[Descent(Schedule(sigmas[:-1], LEVELS.sigma_to_t, LEVELS.t_to_sigma), list(sigmas))],
            predict=self.predict,
            step=lambda: 0,
            unconditional=lambda: self.x,
            randn_like=Noise().like,
            callback=None,
            progress=iter,
            rehearsal=Noise().kept,
            steady=lambda: True,
        )
        found = PromptTargets(parse_targets(targets), [[[(0, "a cat and a dog")]]] * self.images, words)
        handed = {} if masks is None else {"masks": masks}
        self.run = Run(host, Settings(targets=targets, **settings), found, self.x, observers, **handed)
        return self.run


def sampled(host: ToyHost, sampler: str, **settings) -> Tensor:
    with host.start(**settings) as run:
        return run.sample(SAMPLERS[sampler], host.x)


def test_the_toy_is_known_by_its_family_and_others_are_not():
    assert models.of(ToyTransformer()) is FAMILY
    assert models.find(torch.nn.Linear(2, 2)) is None


@pytest.mark.parametrize("sampler", ["sample_euler", "sample_dpmpp_2m", "sample_heun"])
@pytest.mark.parametrize("settings", [{"concavity": 0.0}, {"threshold": 4.0}, {"targets": "unicorn"}])
def test_where_nothing_lags_the_latent_is_the_models_own_to_the_bit(sampler, settings):
    own = ToyHost(2)
    x, denoise = own.x, lambda x, sigma, **_: own.predict(x, sigma[:1])
    expected = getattr(k, sampler)(denoise, x, own.sigmas, disable=True)
    settings = {"mask_timing": "static" if "threshold" in settings else "lagged", **settings}
    assert torch.equal(sampled(ToyHost(2), sampler, **settings), expected)


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("sampler", ["sample_euler", "sample_dpmpp_2m", "sample_heun", "sample_dpmpp_sde"])
def test_every_step_has_one_noise_level_in_each_cell(sampler, curve):
    seen, host = [], ToyHost(2)
    options = {"noise_sampler": lambda *_: torch.zeros_like(host.x)} if "sde" in sampler else {}
    with host.start(observers=[seen.append], curve=curve, mask_timing="fresh") as run:
        out = run.sample(SAMPLERS[sampler], host.x, **options)
    assert out.shape == host.x.shape
    assert out.isfinite().all()
    assert len(seen) == STEPS
    assert any(len(step.sigma.map.unique()) > 1 for step in seen)
    for step in seen:
        assert step.sigma.map.shape == (2, 1, HEIGHT, WIDTH)
        assert_constant_in_cells(step.sigma.map)
        assert step.sigma.index.shape[-2:] == (3, 4)
        if step.mask is not None:
            assert step.mask.related.shape == (2, 1, HEIGHT, WIDTH)
            assert_constant_in_cells(step.mask.related)


@pytest.mark.parametrize("settings", [{}, {"curve": "piecewise linear"}, {"mask_timing": "static"}], ids=str)
@pytest.mark.parametrize("sampler", ["sample_euler", "sample_dpmpp_2m", "sample_heun"])
def test_latents_with_a_frame_become_what_they_are_without(sampler, settings):
    plain, framed = ToyHost(2), ToyHost(2, frame=True)
    seen: dict[ToyHost, list] = {plain: [], framed: []}
    out = {}
    for host, steps in seen.items():
        with host.start(observers=[steps.append], **settings) as run:
            out[host] = run.sample(SAMPLERS[sampler], host.x)
    assert out[framed].shape == framed.x.shape
    assert torch.equal(out[framed].squeeze(2), out[plain])
    assert any(len(step.sigma.map.unique()) > 1 for step in seen[plain])
    for with_frame, without in zip(seen[framed], seen[plain], strict=True):
        assert with_frame.sigma.map.shape == (2, 1, 1, HEIGHT, WIDTH)
        assert torch.equal(with_frame.sigma.map.squeeze(2), without.sigma.map)
        if without.mask is not None:  # pictures are made of it
            assert torch.equal(with_frame.mask.related, without.mask.related)


@pytest.mark.parametrize("frame", [False, True])
def test_the_pictures_of_a_run_have_the_latents_own_pixels(frame):
    """The last cells of a row and a column hold fewer."""
    host, film, shown = ToyHost(2, frame), Film(["cat"], 4), []
    with host.start(observers=[film, shown.append], mask_timing="fresh") as run:
        run.sample(SAMPLERS["sample_euler"], host.x)
    reel = film.reel(1)
    assert len(reel.frames) == 4
    assert any(frame.timesteps.min() < frame.timesteps.max() for frame in reel.frames)
    for frame in reel.frames:
        assert frame.timesteps.shape == frame.mask.shape == (HEIGHT, WIDTH)
        step = shown[frame.i]
        expected = LEVELS.sigma_to_t(step.sigma.map[1].double().view(HEIGHT, WIDTH))
        np.testing.assert_allclose(frame.timesteps, expected, rtol=1e-4)
        assert_constant_in_cells(torch.from_numpy(frame.timesteps)[None])
    heat = torch.from_numpy(reel.heats[0].times)
    assert heat.shape == (HEIGHT, WIDTH)
    assert_constant_in_cells(heat)
    times = torch.stack([step.maps[1, 0] / step.maps[1, 0].mean() for step in shown if step.maps is not None])
    torch.testing.assert_close(heat[::SIDE, ::SIDE], times.mean(dim=0), rtol=1e-4, atol=1e-5)
    sheet.draw(Image.new("RGB", (8 * WIDTH, 8 * HEIGHT)), reel, ["a cat"])


def assert_constant_in_cells(map: Tensor) -> None:
    corners = map[..., ::SIDE, ::SIDE]
    spread = corners.repeat_interleave(SIDE, -2).repeat_interleave(SIDE, -1)
    assert torch.equal(map, spread[..., : map.shape[-2], : map.shape[-1]])


def test_each_token_is_what_the_model_makes_of_it_at_its_own_timestep():
    model, generator = ToyTransformer(), torch.Generator().manual_seed(5)
    x, context = torch.randn(3, 4, HEIGHT, WIDTH, generator=generator), torch.randn(3, 12, 8, generator=generator)
    timesteps = torch.tensor([800.0, 650.5, 500.0, 20.25])
    cells = Cells(3, HEIGHT, WIDTH, SIDE, torch.device("cpu"))
    index = torch.randint(4, cells.shape, generator=generator)
    levels = FAMILY.timesteps(model)
    levels.attach()
    with levels.use(timesteps, index):
        mixed = model(x, timesteps[:1].expand(3), context)
    levels.detach()
    assert hooks_on(model) == 0
    for level, t in enumerate(timesteps):
        here = cells.pixels(index == level).expand_as(x)
        torch.testing.assert_close(mixed[here], model(x, t.expand(3), context)[here], rtol=1e-5, atol=1e-6)


def test_the_token_maps_are_the_slow_softmax_over_the_models_own_projections():
    model, generator = ToyTransformer(), torch.Generator().manual_seed(6)
    x, context = torch.randn(2, 4, HEIGHT, WIDTH, generator=generator), torch.randn(2, 12, 8, generator=generator)
    weights, slow, handles = torch.rand(12, 2, generator=generator), [], []
    projected: dict[str, Tensor] = {}
    for block in model.blocks:
        for name in ("to_q", "to_k"):
            module = getattr(block.attention, name)
            handles.append(module.register_forward_hook(lambda m, a, out, name=name: projected.update({name: out})))

        def attended(module: object, args: object, output: object) -> None:
            for head in range(2):
                q, k = (projected[name][1, :, 8 * head : 8 * head + 8] for name in ("to_q", "to_k"))
                slow.append((q @ k.T * 8**-0.5).softmax(dim=-1) @ weights)

        handles.append(block.register_forward_hook(attended))
    maps = FAMILY.token_maps(model, (HEIGHT, WIDTH))
    maps.attach()
    with maps.record([None, (1, 0)], lambda row, tokens: weights):
        model(x, torch.full((2,), 500.0), context)
    rows, means, _ = maps.take()
    maps.detach()
    for handle in handles:
        handle.remove()
    assert rows == [(1, 0)]
    assert maps.size == (3, 4)
    assert len(slow) == 4
    torch.testing.assert_close(means[0].flatten(1).T, sum(slow) / 4, rtol=1e-5, atol=1e-6)
    assert hooks_on(model) == 0


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_no_hook_stays_after_success_or_an_exception(error):
    host = ToyHost()
    with host.start() as run:
        assert hooks_on(host.model) > 0
        run.sample(SAMPLERS["sample_euler"], host.x)
    assert hooks_on(host.model) == 0

    def fail(*_: object) -> None:
        raise error

    handle = host.model.blocks[1].register_forward_hook(fail)
    with pytest.raises(error), host.start() as run:
        run.sample(SAMPLERS["sample_euler"], host.x)
    handle.remove()
    assert hooks_on(host.model) == 0
    assert host.run.evaluating is None


def test_a_mask_that_is_handed_in_needs_no_token_maps():
    related = torch.zeros(1, 1, 3, 4, dtype=torch.bool)
    related[..., 1, 2] = True
    painted = Mask(related, torch.full((1, 1, 3, 4), 0.5, dtype=torch.float64))
    host, seen = ToyHost(), []
    with host.start(masks=lambda *_: FixedMask(painted, [0.5]), observers=[seen.append]) as run:
        run.sample(SAMPLERS["sample_euler"], host.x)
    lagging = seen[-2].sigma.map > seen[-2].sigma.scalar
    assert lagging.nonzero()[:, -2:].tolist() == [[2, 4], [2, 5], [3, 4], [3, 5]]
    assert all(step.maps is None for step in seen)


def test_a_refiner_with_other_cells_is_unsupported():
    host = ToyHost()

    class OtherCells(type(FAMILY)):
        def side(self, model: object) -> int:
            return 1 if model is not host.model else SIDE

    other = ToyTransformer(seed=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "FAMILIES", (OtherCells(),))
        with host.start() as run, pytest.raises(Unsupported, match="refiner"):
            run.move(other, None)
    assert hooks_on(host.model) == hooks_on(other) == 0


@pytest.mark.parametrize("timestep", [False, True], ids=["of the sigma", "of the timestep"])
def test_a_factor_on_the_level_that_the_model_is_told_holds_for_every_cell(timestep):
    """As Detail Daemon does: each row by a factor of its own, cells that lag as the others."""
    host, factor = ToyHost(2), torch.tensor([0.9, 1.0, 1.2, 0.9])
    seen = []
    with host.start(mask_timing="fresh") as run:
        steps = iter(run)
        step = next(steps)
        step.predict(host.x)
        step.advance()
        step = next(steps)
        levels = step.sigma.map
        assert len(levels.unique()) > 1
        names = [(image, part) for part in (0, None) for image in range(2)]
        x = torch.randn(4, 4, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(7))
        own = step.sigma.scalar.to(x)
        t = LEVELS.sigma_to_t(own.double()).float()
        told = t * factor if timestep else LEVELS.sigma_to_t((own * factor).double()).float()

        def predict(x_: Tensor, sigma: Tensor) -> Tensor:
            with run.rows(names, told=Told(factor, timestep)) as here:
                seen.append((host.model(x, told, host.context), here.sigma))
            return x_

        run.host.predict = predict
        step.predict(host.x)
    (out, sigmas), *_ = seen
    assert hooks_on(host.model) == 0
    for row, (image, _) in enumerate(names):
        scale = 1.0 if timestep else factor[row]
        torch.testing.assert_close(sigmas[row], levels[image] * scale, rtol=1e-6, atol=0)
        for level in levels[image].unique():
            here = (levels[image] == level).expand(4, -1, -1)
            at = LEVELS.sigma_to_t(level.double())
            at = at * factor[row] if timestep else LEVELS.sigma_to_t((level * factor[row]).double())
            alone = host.model(x[row : row + 1], at.float()[None], host.context[row : row + 1])[0]
            torch.testing.assert_close(out[row][here], alone[here], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("frame", [False, True])
def test_pieces_of_the_picture_have_the_levels_of_their_patches(frame):
    """Of any place that does not cut through a patch. Its tokens see the prompt alone, so that each
    is the same in a piece and in the whole."""
    host = ToyHost(2, frame)
    boxes, seen = [Box(2, 0, 2, 5), Box(0, 2, 2, 5)], []
    with host.start(mask_timing="fresh") as run:
        steps = iter(run)
        step = next(steps)
        step.predict(host.x)
        step.advance()
        step = next(steps)
        assert len(step.sigma.map.unique()) > 1
        names = [(image, part) for part in (0, None) for image in range(2)]
        t = LEVELS.sigma_to_t(step.sigma.scalar.double()).float().expand(4)
        flat = torch.randn(4, 4, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(7))

        def predict(x: Tensor, sigma: Tensor) -> Tensor:
            with run.rows(names):
                whole = host.model(flat, t, host.context)
            for box in boxes:
                with run.rows(names, boxes=[box] * 4) as here:
                    seen.append((box, whole, host.model(box.of(flat), t, host.context), here.sigma))
            with pytest.raises(TakenApart), run.rows(names, boxes=[Box(1, 0, 2, 5)] * 4):
                pass
            return x

        run.host.predict = predict
        step.predict(host.x)
    assert len(seen) == 2
    assert hooks_on(host.model) == 0
    for box, whole, piece, sigmas in seen:
        torch.testing.assert_close(piece[..., :4], box.of(whole)[..., :4], rtol=1e-4, atol=1e-5)
        assert torch.equal(sigmas[:2], box.of(step.sigma.map))
