"""Tables made ahead beside extensions that change what the model computes from step to step."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import repeat

import pytest
import torch
from picture_digests import ON, REQUEST
from stand_ins import tiny_unet
from torch import Tensor, nn

from asyndm_lib.demo import MODEL
from asyndm_lib.hosts.standalone import embedded
from asyndm_lib.hosts.standalone.embedded import Embedded
from asyndm_lib.hosts.standalone.ldm_checkpoint import load
from asyndm_lib.models.parts import level_tables
from asyndm_lib.models.parts.tabled_timesteps import UNSEEN
from asyndm_lib.run.host import Host
from asyndm_lib.run.run import Run

SMALL = replace(REQUEST, steps=8, width=64, height=64)
BATCHES = {"one": SMALL, "two": replace(SMALL, seeds=(1, 2)), "an inner level": replace(SMALL, sampler="DPM++ SDE")}
Change = Callable[[nn.Linear, int], None]


@pytest.fixture(scope="module")
def host() -> Embedded:
    checkpoint = load(MODEL, None, torch.device("cpu"))
    width = checkpoint.diffusion_model.middle_block[1].transformer_blocks[0].attn2.to_k.in_features
    return Embedded(replace(checkpoint, diffusion_model=tiny_unet(context_dim=width)))


@pytest.fixture
def pictures(host, monkeypatch):
    """``(request, change, steady)`` → the latents, and the run's problems.

    ``change(layer, n)`` happens before the ``n``-th call of the model.
    """

    def made(request: object, change: Change, steady: Iterable[bool]) -> tuple[Tensor, set[str]]:
        unet, runs, calls = host._model.diffusion_model, [], []
        layers = [unet.time_embed[0], *(block[0].emb_layers[1] for block in unet.input_blocks if _timed(block[0]))]
        kept = [layer.weight.detach().clone() for layer in layers]

        def about_to(module: nn.Module, args: tuple) -> None:
            for layer in layers:
                change(layer, len(calls))
            calls.append(1)

        class Kept(Run):
            def __init__(self, *args: object, **options: object):
                super().__init__(*args, **options)
                runs.append(self)

        with monkeypatch.context() as patch, unet.register_forward_pre_hook(about_to):
            patch.setattr(embedded, "Run", Kept)
            patch.setattr(embedded, "Host", lambda **parts: Host(**{**parts, "steady": iter(steady).__next__}))
            latents = host.sample(request, replace(ON, targets="cat"))
        for layer, weight in zip(layers, kept, strict=True):
            layer.weight = nn.Parameter(weight, requires_grad=False)
        return latents, set(runs[0].problems)

    return made


def _timed(module: nn.Module) -> bool:
    return "emb_layers" in module._modules


def _through_data(layer: nn.Linear, n: int) -> None:
    if n in (3, 4):
        layer.weight.data.mul_(1.5)


def _beside_the_weights(layer: nn.Linear, n: int) -> None:
    """A LoRA that acts where a layer is called, and whose weight changes."""
    layer.share = n / 4


@pytest.fixture
def functional(monkeypatch):
    """A class-wide forward as that of AUTOMATIC1111's LoRAs, under its option to act beside the
    weights."""
    own = nn.Linear.forward
    monkeypatch.setattr(nn.Linear, "forward", lambda self, x: own(self, x) * (1 + getattr(self, "share", 0.0)))


@pytest.mark.parametrize("request_", BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize("change", [_through_data, _beside_the_weights])
def test_where_a_host_is_not_steady_nothing_is_made_ahead(change, request_, pictures, functional, monkeypatch):
    made, problems = pictures(request_, change, steady=repeat(False))
    stale, _ = pictures(request_, change, steady=repeat(True))
    monkeypatch.setattr(level_tables, "AHEAD", 0)
    expected, _ = pictures(request_, change, steady=repeat(True))
    assert torch.equal(made, expected)
    assert problems == set()
    assert not torch.allclose(made, stale, atol=1e-2)


@pytest.mark.parametrize("request_", BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize("change", [_through_data, _beside_the_weights])
def test_a_change_that_nobody_sees_in_time_is_told(change, request_, pictures, functional):
    _, problems = pictures(request_, change, steady=repeat(True))
    assert problems == {UNSEEN}


@pytest.mark.parametrize("request_", BATCHES.values(), ids=BATCHES)
def test_where_nothing_changes_nothing_is_told(request_, pictures):
    assert pictures(request_, lambda layer, n: None, steady=repeat(True))[1] == set()


def test_a_host_that_ceases_to_be_steady_uses_nothing_that_was_made_before(pictures, monkeypatch):
    made = {}
    for ahead in (64, 0):
        monkeypatch.setattr(level_tables, "AHEAD", ahead)
        made[ahead] = pictures(SMALL, _through_data, steady=[True] * 3 + [False] * 5)[0]
    torch.testing.assert_close(made[64], made[0], rtol=1e-4, atol=1e-4)
