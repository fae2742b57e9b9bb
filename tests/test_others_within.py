"""What other extensions do within the calls of the model, and to the layers that are watched."""

from __future__ import annotations

import gc
import weakref
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from picture_digests import ON, REQUEST
from stand_ins import hooks_on, tiny_unet
from test_conditioning import inputs, random_index, with_map
from torch import Tensor, nn

from asyndm_lib.demo import MODEL
from asyndm_lib.errors import Unsupported
from asyndm_lib.hosts.standalone import embedded
from asyndm_lib.hosts.standalone.ldm_checkpoint import load
from asyndm_lib.masks.target_masks import TIMINGS
from asyndm_lib.models.parts.patching import replaced, watched
from asyndm_lib.models.parts.tabled_timesteps import TAKEN, UNKNOWN, UNREACHED
from asyndm_lib.models.unet import FAMILY
from asyndm_lib.run.run import Run

LEVELS = torch.tensor([601.0, 750.25, 801.0, 998.5], dtype=torch.float64)
KINDS = [None, 5]


def rows_of(given: dict, rows: list[int]) -> dict:
    return {name: value[rows] for name, value in given.items()}


def prepared(classes: int | None) -> tuple[nn.Module, dict, Tensor]:
    unet = tiny_unet(num_classes=classes)
    given, index = inputs(unet), random_index(4)
    given["timesteps"] = torch.full((3,), LEVELS[0].item())
    return unet, given, index


@pytest.mark.parametrize("classes", KINDS)
@pytest.mark.parametrize("rows", [[1], [2, 0], [0, 1, 2], [2, 1, 0, 0, 1, 2], [1, 1, 0, 2]])
def test_a_further_call_within_a_call_has_the_levels_of_the_pictures_that_it_holds(rows, classes):
    unet, given, index = prepared(classes)
    expected = with_map(unet, LEVELS, index, given)
    pixels = FAMILY.timesteps(unet)
    pixels.attach()
    with torch.no_grad(), pixels.use(LEVELS, index):
        first, again, last = unet(**given), unet(**rows_of(given, rows)), unet(**given)
    pixels.detach()
    assert torch.equal(first, expected)
    assert torch.equal(last, expected)
    if len(rows) != 3:
        torch.testing.assert_close(again, expected[rows], rtol=1e-4, atol=1e-5)
    assert pixels.problems == set()


@pytest.mark.parametrize("classes", KINDS)
def test_a_further_call_with_changed_pictures_has_their_levels_if_it_has_as_many_again(classes):
    unet, given, index = prepared(classes)
    twice = rows_of(given, [0, 1, 2] * 2) | {"x": torch.cat([given["x"], given["x"]]) * 1.1}
    expected = with_map(unet, LEVELS, index, given | {"x": given["x"] * 1.1})
    pixels = FAMILY.timesteps(unet)
    pixels.attach()
    with torch.no_grad(), pixels.use(LEVELS, index):
        unet(**given)
        again = unet(**twice)
    pixels.detach()
    torch.testing.assert_close(again, torch.cat([expected, expected]), rtol=1e-4, atol=1e-5)


def test_a_further_call_with_pictures_that_nobody_knows_has_one_level_and_is_told():
    unet, given, index = prepared(None)
    strange = rows_of(given, [0, 1]) | {"x": given["x"][:2] * 1.1}
    plain, expected = unet(**strange), with_map(unet, LEVELS, index, given)
    pixels = FAMILY.timesteps(unet)
    pixels.attach()
    with torch.no_grad(), pixels.use(LEVELS, index):
        assert torch.equal(unet(**given), expected)
        assert torch.equal(unet(**strange), plain)
        assert torch.equal(unet(**given), expected)
    pixels.detach()
    assert pixels.problems == {UNKNOWN}


def test_all_rows_of_a_single_picture_have_its_levels():
    unet, given, index = prepared(None)
    index = index[:1].expand(3, -1, -1, -1)
    changed = rows_of(given, [0, 1]) | {"x": given["x"][:2] * 1.1}
    expected = with_map(unet, LEVELS, index[:2], changed)
    pixels = FAMILY.timesteps(unet)
    pixels.attach()
    with torch.no_grad(), pixels.use(LEVELS, index):
        unet(**given)
        torch.testing.assert_close(unet(**changed), expected, rtol=1e-4, atol=1e-5)
    pixels.detach()


def test_a_model_whose_layers_do_not_run_is_met_with_a_message():
    """Somebody else has recorded the whole model, and plays it back."""
    unet, given, index = prepared(None)
    recorded = unet(**given)
    unet.forward = lambda *args, **kwargs: recorded
    pixels = FAMILY.timesteps(unet)
    pixels.attach()
    with pixels.use(LEVELS[:1], torch.zeros_like(index)):
        unet(**given)  # all pixels are at one level
    with pixels.use(LEVELS, index):
        pass  # nobody called it
    with pytest.raises(Unsupported, match=UNREACHED[:40]), pixels.use(LEVELS, index):
        unet(**given)
    pixels.detach()


@pytest.mark.parametrize("how", ["deleted", "restored"])
def test_a_forward_of_ours_that_is_taken_away_in_mid_run_is_met_with_a_message(how):
    unet, given, index = prepared(None)
    layers = unet.input_blocks[1][0].emb_layers
    theirs = layers.forward
    if how == "restored":
        layers.forward = theirs
    pixels = FAMILY.timesteps(unet)
    pixels.attach()
    with pixels.use(LEVELS, index):
        unet(**given)
    if how == "deleted":
        del layers.forward
    else:
        layers.forward = theirs
    with pytest.raises(Unsupported, match=TAKEN[:40]), pixels.use(LEVELS, index):
        unet(**given)
    pixels.detach()
    assert hooks_on(unet) == (how == "restored")


@pytest.mark.parametrize("how", ["deleted", "restored", "wrapped"])
@pytest.mark.parametrize("where", ["in_layers", "to_q", "to_k"])
def test_layers_whose_forward_is_exchanged_in_mid_run_are_still_seen(where, how):
    unet, given, index = prepared(None)
    attention = unet.middle_block[1].transformer_blocks[0].attn2
    layer = unet.input_blocks[1][0].in_layers[-1] if where == "in_layers" else getattr(attention, where)
    theirs = layer.forward
    if how == "restored":
        layer.forward = theirs
    expected, before = with_map(unet, LEVELS, index, given), hooks_on(unet)
    pixels, maps = FAMILY.timesteps(unet), FAMILY.token_maps(unet, (16, 16))
    pixels.attach()
    maps.attach()

    def called() -> tuple[Tensor, Tensor]:
        with torch.no_grad(), pixels.use(LEVELS, index), maps.record([0, 1, 2], lambda row, n: torch.eye(n)[:, :2]):
            return unet(**given), maps.take().maps

    usual = called()
    ours = layer.forward
    if how == "deleted":
        del layer.forward
    else:
        layer.forward = theirs if how == "restored" else lambda x: ours(x)
    for _ in range(2):
        out, read = called()
        assert torch.equal(out, usual[0])
        assert torch.equal(out, expected)
        torch.testing.assert_close(read, usual[1])
    maps.detach()
    pixels.detach()
    assert hooks_on(unet) == before + (how == "wrapped")
    with torch.no_grad():
        unet(**given)


def test_what_somebody_put_in_place_of_ours_stays_theirs():
    class Owner:
        pass

    for owner in (Owner(), nn.Identity()):
        with replaced(owner, "forward", 1):
            owner.__dict__["forward"] = 2
        assert owner.__dict__["forward"] == 2
        with replaced(owner, "forward", 1):
            del owner.__dict__["forward"]
        assert "forward" not in owner.__dict__


def test_a_forward_of_ours_that_somebody_keeps_holds_nothing_of_the_run():
    class Watching:
        def __call__(self, output: Tensor) -> None:
            seen.append(output)

    layer, seen = nn.Linear(2, 2), []
    watching = Watching()
    gone = weakref.ref(watching)
    gc.disable()
    try:
        with watched(layer, watching):
            kept = layer.forward
            layer(torch.zeros(1, 2))
        del watching
        assert gone() is None
    finally:
        gc.enable()
    assert torch.equal(kept(torch.ones(1, 2)), layer(torch.ones(1, 2)))
    assert len(seen) == 1


def test_a_hook_of_ours_goes_also_where_somebody_else_put_the_hooks_into_another_dict():
    layer, seen = nn.Linear(2, 2), []
    theirs = layer.register_forward_hook(lambda *_: None)
    with watched(layer, seen.append):
        layer._forward_hooks = OrderedDict((i, hook) for i, hook in layer._forward_hooks.items() if i != theirs.id)
        layer(torch.zeros(1, 2))
    layer(torch.zeros(1, 2))
    assert len(seen) == 1
    assert not layer._forward_hooks


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("timing", TIMINGS)
def test_a_run_is_gone_with_its_job_and_waits_for_no_garbage_collector(timing, error, monkeypatch):
    checkpoint = load(MODEL, None, torch.device("cpu"))
    width = checkpoint.diffusion_model.middle_block[1].transformer_blocks[0].attn2.to_k.in_features
    host, runs = embedded.Embedded(replace(checkpoint, diffusion_model=tiny_unet(context_dim=width))), []

    class Known(Run):
        def __init__(self, *args: object):
            super().__init__(*args)
            runs.extend(map(weakref.ref, (self, self.call, self.masks, self.call._timesteps)))

    def progress(steps: Iterable[int]) -> Iterable[int]:
        yield from (n for n in steps if n < 2)
        if error is not None:
            raise error
        yield from (n for n in steps if n >= 2)

    monkeypatch.setattr(embedded, "Run", Known)
    gc.disable()
    try:
        with pytest.raises(error) if error else nullcontext():
            host.sample(replace(REQUEST, steps=4, width=64, height=64), replace(ON, mask_timing=timing), progress)
        assert [one() for one in runs] == [None] * 4
    finally:
        gc.enable()
