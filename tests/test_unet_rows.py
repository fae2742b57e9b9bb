"""The rows of the calls of Forge's UNet: the host's own, and those of other extensions."""

from __future__ import annotations

import copy
import importlib
import sys
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace

import pytest
import torch

from asyndm_lib.clock.cells import Box
from asyndm_lib.run.model_call import Rows

B, PARTS, SIGMA = 2, 2, 3.0
CONTEXTS = torch.randn(PARTS + 1, B, 7, 4, generator=torch.Generator().manual_seed(1))
"""Of the parts, then of the negative prompt; one for each image."""


@pytest.fixture
def unet_rows(monkeypatch):
    """The module as in Forge, without Forge."""
    modules = ModuleType("modules")
    modules.prompt_parser = ModuleType("modules.prompt_parser")
    modules.prompt_parser.reconstruct_multicond_batch = lambda cond, step: (None, CONTEXTS[0])
    modules.sd_samplers_cfg_denoiser = ModuleType("modules.sd_samplers_cfg_denoiser")
    for name in ("cfg_denoiser_callback", "cfg_after_cfg_callback"):
        setattr(modules.sd_samplers_cfg_denoiser, name, lambda params: None)
    monkeypatch.setitem(sys.modules, "modules", modules)
    for name in ("prompt_parser", "sd_samplers_cfg_denoiser"):
        monkeypatch.setitem(sys.modules, f"modules.{name}", getattr(modules, name))
    name = "asyndm_lib.hosts.forge_family.unet_rows"
    monkeypatch.delitem(sys.modules, name, raising=False)
    module = importlib.import_module(name)
    monkeypatch.setitem(sys.modules, name, module)  # gone afterwards
    return module


class UNet:
    """Forge's patcher: ``options`` are what other extensions have set."""

    def __init__(self, options):
        self.model_options = options

    def clone(self):
        return UNet(copy.deepcopy(self.model_options))

    def set_model_unet_function_wrapper(self, wrapper):
        self.model_options["model_function_wrapper"] = wrapper


class Run:
    """``called``: of each call of the model, the rows and what was told; ``why``: what was not
    matched."""

    def __init__(self):
        self.evaluating, self.called, self.boxes, self.why = object(), [], [], []

    @contextmanager
    def rows(self, rows, tokens, told, boxes):
        self.called.append((rows, None if told is None else told.factor.tolist()))
        self.boxes.append(boxes)
        yield

    def unmatched(self, why):
        self.why.append(why)


class Forge:
    """One evaluation of Forge's denoiser, as it is with two images and two ``AND`` parts."""

    def __init__(self, unet_rows, callback=lambda params: None, **options):
        module = unet_rows.sd_samplers_cfg_denoiser
        module.cfg_denoiser_callback = callback
        self.run = Run()
        self.x = torch.randn(B, 4, 6, 8, generator=torch.Generator().manual_seed(2))
        self.unet = UNet(options)
        sd_model = SimpleNamespace(forge_objects=SimpleNamespace(unet=self.unet))
        model = SimpleNamespace(forward=lambda: self._forward(module, sd_model), step=0)
        cond = SimpleNamespace(batch=[[None] * PARTS] * B)
        rows = unet_rows.UNetRows(self.run, model, {"cond": cond})
        with rows.counted(), rows.named(sd_model):
            model.forward()
        assert sd_model.forge_objects.unet is self.unet
        assert self.unet.model_options == options

    def _forward(self, module, sd_model):
        params = SimpleNamespace(x=self.x, sigma=torch.full((B,), SIGMA))
        module.cfg_denoiser_callback(params)
        options = sd_model.forge_objects.unet.clone().model_options  # extensions clone it in their callbacks
        for function in options.get("sampler_pre_cfg_function", ()):
            params.sigma = function(self, options, params.sigma)
        # The negative prompt first, the parts last to first.
        self.calc([1, 0, 0], CONTEXTS[[2, 1, 0]], params.x, params.sigma, options)
        for function in options.get("sampler_post_cfg_function", ()):
            function(self, options, params.sigma)

    @staticmethod
    def calc(kinds, contexts, x, sigma, options):
        call = {
            "input": x.repeat(len(kinds), 1, 1, 1),
            "timestep": sigma.repeat(len(kinds)),
            "c": {"c_crossattn": contexts.flatten(0, 1)},
            "cond_or_uncond": kinds,
        }
        options["model_function_wrapper"](lambda x, t, **c: x, call)


OWN = [(0, None), (1, None), (0, 1), (1, 1), (0, 0), (1, 0)]


def test_the_hosts_own_call(unet_rows):
    forge = Forge(unet_rows)
    assert forge.run.called == [(OWN, None)]


def test_between_the_calls_of_the_model_pictures_are_whole_batches(unet_rows):
    """As ControlNet asks for them, also after another extension has changed what it is told."""
    run = Run()
    run.evaluating = Rows(torch.arange(1.0, 1 + B).view(B, 1, 1, 1).expand(B, 1, 6, 8), torch.ones(B, 1, 6, 8))
    rows = unet_rows.UNetRows(run, None, {"cond": SimpleNamespace(batch=[])})
    rows._sigma = torch.full((B,), SIGMA)
    for n, sigma in ((2 * B, torch.full((2 * B,), SIGMA / 2)), (B, torch.tensor(SIGMA / 2))):
        here = rows.levels(sigma, torch.Size((n, 4, 6, 8)))
        assert here.sigma[:, 0, 0, 0].tolist() == [0.5, 1.0] * (n // B)
        assert len(here.lagging) == n
    for shape in ((1, 4, 6, 8), (B, 4, 3, 4)):
        assert rows.levels(torch.full((shape[0],), SIGMA), torch.Size(shape)) is None


@pytest.mark.parametrize("place", ["pre", "post"])
@pytest.mark.parametrize("change", [lambda x: x, lambda x: x + 1], ids=["as it is", "changed"])
def test_a_guidance_calls_the_model_again(place, change, unet_rows):
    """Its rows are unconditional, since no map is to be read there, and do not count."""

    def guidance(forge, options, sigma):
        forge.calc([0], CONTEXTS[:1], change(forge.x), sigma, options)
        return sigma

    forge = Forge(unet_rows, **{f"sampler_{place}_cfg_function": [guidance]})
    theirs = [(0, None), (1, None)], None
    assert forge.run.called == ([theirs, (OWN, None)] if place == "pre" else [(OWN, None), theirs])


def test_a_guidance_that_turns_the_batch_round(unet_rows):
    def guidance(forge, options, sigma):
        forge.calc([0], CONTEXTS[:1], forge.x.flip(0), sigma, options)

    forge = Forge(unet_rows, sampler_post_cfg_function=[guidance])
    assert forge.run.called[-1] == ([(1, None), (0, None)], None)


@pytest.mark.parametrize(
    "part", [lambda x: x[..., :4] + 1, lambda x: torch.cat([x, x[:1] + 1])], ids=["a changed piece", "one more"]
)
def test_a_guidance_with_other_pictures(part, unet_rows):
    def guidance(forge, options, sigma):
        x = part(forge.x)
        forge.calc([0], CONTEXTS[:1, [0] * len(x)], x, sigma[[0] * len(x)], options)

    forge = Forge(unet_rows, sampler_post_cfg_function=[guidance])
    assert forge.run.called == [(OWN, None)]
    assert forge.run.why == [unet_rows.UNKNOWN]


def test_a_guidance_with_windows_of_the_pictures(unet_rows):
    def guidance(forge, options, sigma):
        forge.calc([0], CONTEXTS[:1], forge.x[:, :, 1:, 2:7], sigma, options)

    forge = Forge(unet_rows, sampler_post_cfg_function=[guidance])
    assert forge.run.called == [(OWN, None), ([(0, None), (1, None)], None)]
    assert forge.run.boxes == [None, [Box(1, 2, 5, 5)] * B]
    assert forge.run.why == []


def test_a_wrapper_that_calls_the_model_tile_by_tile(unet_rows):
    """Forge's MultiDiffusion joins some tiles to one call."""

    def wrapper(apply, call):
        x, t, context = call["input"], call["timestep"], call["c"]["c_crossattn"]
        tiles = [x[..., :4], x[..., 2:6], x[..., 4:]]
        for part in (tiles[:2], tiles[2:]):
            n = len(part)
            apply(torch.cat(part), t.repeat(n), c_crossattn=context.repeat(n, 1, 1))

    forge = Forge(unet_rows, model_function_wrapper=wrapper)
    assert [rows for rows, _ in forge.run.called] == [OWN * 2, OWN]
    assert forge.run.boxes == [[Box(0, 0, 6, 4)] * 6 + [Box(0, 2, 6, 4)] * 6, [Box(0, 4, 6, 4)] * 6]


def test_a_wrapper_whose_tiles_are_changed(unet_rows):
    def wrapper(apply, call):
        return apply(call["input"][..., :4] + 1, call["timestep"], **call["c"])

    forge = Forge(unet_rows, model_function_wrapper=wrapper)
    assert forge.run.called == []
    assert len(forge.run.why) == 1


def test_a_wrapper_that_calls_the_model_with_a_part_of_the_rows(unet_rows):
    def wrapper(apply, call):
        for rows in ([4, 5], [0, 1, 2, 3]):
            apply(call["input"][rows], call["timestep"][rows], c_crossattn=call["c"]["c_crossattn"][rows])

    forge = Forge(unet_rows, model_function_wrapper=wrapper)
    assert [rows for rows, _ in forge.run.called] == [OWN[4:], OWN[:4]]


def _in_place(params):
    params.sigma *= 0.5


def _anew(params):
    params.sigma = params.sigma * 0.5


def _halved(forge, options, sigma):
    return sigma * 0.5


def _wrapped(apply, call):
    apply(call["input"], call["timestep"] * 0.5, **call["c"])


@pytest.mark.parametrize(
    "how",
    [
        {"callback": _in_place},
        {"callback": _anew},
        {"sampler_pre_cfg_function": [_halved]},
        {"model_function_wrapper": _wrapped},
    ],
    ids=["in place", "anew", "before", "wrapper"],
)
def test_what_the_model_is_told(how, unet_rows):
    assert Forge(unet_rows, **how).run.called == [(OWN, [0.5] * len(OWN))]
