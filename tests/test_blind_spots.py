"""Branches that a change could take away while all other tests stay green."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from stand_ins import make_run, tiny_unet, uniform_sigmas, words
from test_conditioning import inputs, random_index, with_map
from test_plain_forms import evaluated
from torch import Tensor, nn

from asyndm_lib.clock.cells import Cells
from asyndm_lib.masks.target_masks import TIMINGS, Threshold
from asyndm_lib.models import unet as parts
from asyndm_lib.models.family import Recorded
from asyndm_lib.models.parts import level_tables
from asyndm_lib.models.parts.patching import watched
from asyndm_lib.models.unet import FAMILY, PLAIN
from asyndm_lib.prompt.prompt_targets import PromptTargets
from asyndm_lib.prompt.target_list import parse_targets
from asyndm_lib.run.run import Run

HEIGHT, WIDTH = 8, 12


def model(x: Tensor, sigma: Tensor) -> Tensor:
    return x / (1 + sigma**2)


def test_rows_that_are_evaluated_again_in_a_step_are_not_read_again():
    """An extension's guidance asks a host that names the rows of its calls for some once more."""
    sigmas, x = uniform_sigmas(6), torch.randn(1, 4, HEIGHT, WIDTH, dtype=torch.float64)
    masks = []
    for times in (0, 1):
        with make_run(x, sigmas, model, targets="cat", mask_timing="fresh") as run:
            run.host.predict = partial(_and_again, run, run.host.predict, times)
            for step in run:
                step.predict(x)
                step.advance()
        masks.append(torch.stack(run.seen))
    assert len(masks[0].unique()) > 6
    assert torch.equal(*masks)


def _and_again(run: Run, predict: Callable[..., Tensor], times: int, x: Tensor, sigma: Tensor) -> Tensor:
    """The host's prediction, then ``times`` calls of the model, which attends elsewhere in them."""
    random = run.unet._random
    state = random.get_state()
    prediction = predict(x, sigma)
    for _ in range(times):
        with run.rows([(0, 0), (0, None)]):
            run.unet(x.expand(2, -1, -1, -1))
    random.set_state(state)
    torch.randn(3, generator=random)  # the next step attends elsewhere too
    return prediction


def test_rows_in_another_order_than_the_images_make_each_images_own_mask():
    targets = PromptTargets(parse_targets("cat"), [[[(0, "a cat")]]] * 3, words)
    cells = Cells(3, 4, 4, 1, torch.device("cpu"))
    masks = TIMINGS["fresh"](targets, Threshold(targets, 0.5, 1.0, cells), cells)
    masks.begin([True, True], 0)
    maps = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    in_order = masks.after(0, Recorded([(0, 0), (1, 0), (2, 0)], maps), 0).related
    turned = masks.after(1, Recorded([(2, 0), (0, 0), (1, 0)], maps[[2, 0, 1]]), 0).related
    assert torch.equal(turned, in_order)
    assert not torch.equal(in_order[0], in_order[1])


@pytest.mark.parametrize("labels", [None, 5])
@pytest.mark.parametrize("levels", [level_tables.LEVELS, level_tables.LEVELS + 1, 400])
def test_more_levels_than_are_looked_up_are_each_at_their_own(levels, labels):
    unet = tiny_unet(num_classes=labels)
    given = inputs(unet, 2, 16, 32)
    timesteps = torch.linspace(999, 1, levels, dtype=torch.float64)
    given["timesteps"] = torch.full((2,), timesteps[0].item())
    index = torch.arange(2 * 16 * 32).view(2, 1, 16, 32) % levels
    plain, fast = (evaluated(family, unet, timesteps, index, given) for family in (PLAIN, FAMILY))
    torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(fast, evaluated(FAMILY, unet, timesteps, index.flip(3), given), atol=1e-2)


def test_a_glance_is_what_comes_if_the_same_pixels_stay_related():
    sigmas, x = uniform_sigmas(8), torch.randn(1, 4, HEIGHT, WIDTH, dtype=torch.float64)
    with make_run(x, sigmas, model, targets="cat", mask_timing="static") as run:
        for step in run:  # the ordinary pass, whose glances see nothing lag
            step.predict(x)
            step.advance()
            after = step.glance()
            assert after is None or len(after.map.unique()) == 1
        run.masks.end_rehearsal()
        glances, maps = [], []
        for step in run:
            maps.append(step.sigma.map)
            step.predict(x)
            step.advance()
            glances.append(step.glance())
    assert glances[-2] is None
    for glance, came in zip(glances[:-2], maps[2:], strict=True):
        assert torch.equal(glance.map, came)
    assert len(maps[3].unique()) == 2


def test_a_forward_that_the_host_exchanges_in_the_class_is_the_one_that_runs():
    class Layer(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x

    layer, seen = Layer(), []
    with watched(layer, seen.append):
        layer(torch.zeros(1))
        Layer.forward = lambda self, x: x + 1
        layer(torch.zeros(1))
    assert [one.item() for one in seen] == [0, 1]
    assert "forward" not in vars(layer)


def test_parameters_elsewhere_are_used_only_when_their_blocks_turn_comes():
    """A host that offloads brings a block's weights to the device around its call."""
    unet = tiny_unet()
    given, index = inputs(unet), random_index(4)
    timesteps = torch.tensor([601.0, 750.25, 801.0, 998.5], dtype=torch.float64)
    expected = with_map(unet, timesteps, index, given)
    kept, handles = {}, []

    def away(block: nn.Module) -> None:
        linear = block.emb_layers[1]
        kept[block] = linear.weight, linear.bias
        linear.weight, linear.bias = (nn.Parameter(p.to("meta"), requires_grad=False) for p in kept[block])

    def back(block: nn.Module, args: tuple) -> None:
        block.emb_layers[1].weight, block.emb_layers[1].bias = kept[block]

    for block in parts.res_blocks(unet):
        away(block)
        handles.append(block.register_forward_pre_hook(back))
        handles.append(block.register_forward_hook(lambda block, args, output: away(block)))
    torch.testing.assert_close(with_map(unet, timesteps, index, given), expected, rtol=1e-5, atol=1e-5)
    for handle in handles:
        handle.remove()


def _replaced(layer: nn.Linear, n: int) -> None:
    layer.weight = nn.Parameter(layer.weight * 1.5, requires_grad=False)


def _given_other_data(layer: nn.Linear, n: int) -> None:
    layer.weight.data = layer.weight.data * 1.5


def _changed_where_it_is_called(layer: nn.Linear, n: int) -> None:
    """AUTOMATIC1111's LoRAs are put into a layer's weights when the layer is called."""
    own, left = type(layer).forward, [1]

    class Lazy(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            if left:
                left.pop()
                self.weight.mul_(1.5)
            return own(self, x)

    layer.__class__ = Lazy


def _hooked(layer: nn.Linear, n: int) -> None:
    layer.register_forward_hook(lambda module, args, output: output * (n + 2))


def _exchanged(layer: nn.Linear, n: int) -> None:
    own = type(layer).forward
    layer.forward = lambda x: own(layer, x) * (n + 2)


@pytest.mark.parametrize(
    "change", [_replaced, _given_other_data, _changed_where_it_is_called, _hooked, _exchanged]
)
@pytest.mark.parametrize("where", ["a block", "the time embedding"])
def test_what_was_made_ahead_does_not_outlive_a_change_of_the_layers(where, change):
    """A LoRA extension changes weights, or acts beside them, from one step to the next."""
    levels = torch.tensor([601.0, 750.25, 801.0, 998.5], dtype=torch.float64)
    tables, made = [levels + 0.5 * step for step in range(4)], {}
    for ahead in (True, False):
        unet = tiny_unet()
        given, index = inputs(unet), random_index(4)
        layer = unet.input_blocks[1][0].emb_layers[1] if where == "a block" else unet.time_embed[0]
        pixels, outs = FAMILY.timesteps(unet), []
        pixels.attach()
        for step, here in enumerate(tables):
            if step in (1, 2):
                for handle in list(layer._forward_hooks):
                    del layer._forward_hooks[handle]
                change(layer, step)
            given["timesteps"] = torch.full((3,), here[0].item())
            with torch.no_grad(), pixels.use(here, index, tables[step + 1 :] if ahead else ()):
                outs.append(unet(**given))
        pixels.detach()
        made[ahead] = torch.stack(outs)
    torch.testing.assert_close(made[True], made[False], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(made[True][0], made[True][1], atol=1e-2)
