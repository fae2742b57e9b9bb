"""Per-pixel timesteps on ldm's own UNet, against one embedding per pixel."""

from __future__ import annotations

import math
from itertools import pairwise
from types import MethodType

import ldm.modules.diffusionmodules.openaimodel as ldm
import pytest
import torch
from ldm.modules.diffusionmodules.util import timestep_embedding as ldm_embedding
from stand_ins import hooks_on, tiny_unet
from torch import Tensor, nn

from asyndm_lib import models
from asyndm_lib.bench.measure import Operations
from asyndm_lib.errors import Unsupported
from asyndm_lib.models import unet as parts
from asyndm_lib.models.parts import tabled_timesteps as conditioning
from asyndm_lib.models.parts.pixel_timesteps import timestep_embedding
from asyndm_lib.models.unet import FAMILY as UNET

KINDS = {
    "plain": {},
    "labels": {"num_classes": 5},
    "scale and shift": {"use_scale_shift_norm": True},
    "blocks that resize": {"resblock_updown": True, "num_classes": 5},
    "three levels": {"channel_mult": (1, 1, 2), "attention_resolutions": [4]},
}
LEVELS = torch.tensor([601.0, 750.25, 801.0, 998.5], dtype=torch.float64)


def unet_of(kind: str) -> nn.Module:
    return tiny_unet(**KINDS[kind])


def inputs(unet: nn.Module, n: int = 3, h: int = 8, w: int = 12) -> dict:
    random = torch.Generator().manual_seed(3)
    labels = {"y": torch.arange(n) % 3 + 1} if unet.num_classes else {}
    return {
        "x": torch.randn(n, 4, h, w, generator=random),
        "timesteps": torch.full((n,), LEVELS[0].item()),
        "context": torch.randn(n, 7, 8, generator=random),
        **labels,
    }


def random_index(levels: int, n: int = 3, h: int = 8, w: int = 12) -> Tensor:
    index = torch.randint(levels, (n, 1, h, w), generator=torch.Generator().manual_seed(4))
    assert len(index.unique()) == levels
    return index


def with_map(unet: nn.Module, timesteps: Tensor, index: Tensor, given: dict) -> Tensor:
    pixels = UNET.timesteps(unet)
    pixels.attach()
    try:
        with pixels.use(timesteps, index):
            return unet(**given)
    finally:
        pixels.detach()


def one_embedding_per_pixel(unet: nn.Module, timestep_map: Tensor, given: dict) -> Tensor:
    """The output of ``unet`` where each ResBlock is given, for every pixel of its feature map, that
    pixel's own embedding."""
    n, height, width = timestep_map.shape

    def forward(block: nn.Module, x: Tensor, emb: Tensor) -> Tensor:
        h = block.in_layers[:-1](x)
        h, x = block.in_layers[-1](block.h_upd(h)), block.x_upd(x)
        rows, columns = h.shape[-2:]
        here = torch.stack(
            [
                timestep_map[:, math.floor(i * height / rows), math.floor(j * width / columns)]
                for i in range(rows)
                for j in range(columns)
            ],
            dim=1,
        )
        emb = unet.time_embed(ldm_embedding(here.flatten(), unet.model_channels))
        if unet.num_classes is not None:
            emb = emb + unet.label_emb(given["y"]).repeat_interleave(rows * columns, dim=0)
        out = block.emb_layers(emb).view(n, rows, columns, -1).permute(0, 3, 1, 2)
        if block.use_scale_shift_norm:
            scale, shift = out.chunk(2, dim=1)
            return block.skip_connection(x) + block.out_layers[1:](block.out_layers[0](h) * (1 + scale) + shift)
        return block.skip_connection(x) + block.out_layers(h + out)

    blocks = [m for m in unet.modules() if isinstance(m, ldm.ResBlock)]
    for block in blocks:
        block._forward = MethodType(forward, block)
    try:
        return unet(**given)
    finally:
        for block in blocks:
            del block._forward


def send_another_first(unet: nn.Module) -> list[Tensor]:
    """Give ``unet`` a forward that sends another batch through the blocks first; returns what
    becomes of that."""
    own, made = unet.forward, []

    def forward(x: Tensor, *args: object, **kwargs: object) -> Tensor:
        made.append(own(x.flip(0, 2), *args, **kwargs))
        return own(x, *args, **kwargs)

    unet.forward = forward
    return made


@pytest.fixture
def odd_sizes(monkeypatch):
    """Let ldm's UNet take odd sizes, by what the WebUI puts in place of its ``th.cat``."""

    class Torch:
        def __getattr__(self, name: str):
            return getattr(torch, name)

        def cat(self, tensors, *args, **kwargs):
            a, b = tensors
            if a.shape[-2:] != b.shape[-2:]:
                a = nn.functional.interpolate(a, b.shape[-2:], mode="nearest")
            return torch.cat([a, b], *args, **kwargs)

    monkeypatch.setattr(ldm, "th", Torch())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("levels", [1, 4])
def test_a_constant_map_gives_the_plain_unets_output_to_the_bit(kind, levels):
    unet = unet_of(kind)
    given = inputs(unet)
    plain = unet(**given)
    index = torch.zeros(3, 1, 8, 12, dtype=torch.int64)
    assert plain.std() > 0.01
    assert torch.equal(with_map(unet, LEVELS[:levels], index, given), plain)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("levels", [2, 4])
def test_a_map_equals_one_embedding_per_pixel(kind, levels):
    unet = unet_of(kind)
    given, index = inputs(unet), random_index(levels)
    expected = one_embedding_per_pixel(unet, LEVELS[index[:, 0]], given)
    out = with_map(unet, LEVELS[:levels], index, given)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
    assert (out - unet(**given)).abs().mean() > 1e-3, "the map had no effect that could be compared"


@pytest.mark.parametrize("size", [(41, 65), (13, 8), (9, 11)])
def test_odd_sizes_equal_one_embedding_per_pixel(size, odd_sizes):
    unet = unet_of("three levels")
    given, index = inputs(unet, 2, *size), random_index(3, 2, *size)
    expected = one_embedding_per_pixel(unet, LEVELS[index[:, 0]], given)
    torch.testing.assert_close(with_map(unet, LEVELS[:3], index, given), expected, rtol=1e-4, atol=1e-5)


def test_a_block_on_another_grid_takes_the_top_left_pixel_of_each_cell():
    unet = unet_of("three levels")
    timestep_map = torch.arange(8)[:, None] * 100 + torch.arange(12)
    # Of the first level, which is the UNet's own.
    given = {**inputs(unet, 1), "timesteps": torch.zeros(1)}
    seen = _embeddings(unet, timestep_map.flatten().double(), torch.arange(96).view(1, 1, 8, 12), given)
    assert {out.shape[-2:] for _, out in seen} == {(8, 12), (4, 6), (2, 3)}
    for block, out in seen:
        factor = 8 // out.shape[-2]
        strided = timestep_map[::factor, ::factor]
        emb = unet.time_embed(ldm_embedding(strided.flatten(), unet.model_channels))
        expected = block.emb_layers(emb).T.reshape(1, -1, *strided.shape)
        torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["plain", "labels"])
def test_at_each_block_a_pixel_has_the_embedding_of_its_own_timestep(kind):
    unet = unet_of(kind)
    given, index = inputs(unet), random_index(2)
    seen = _embeddings(unet, LEVELS[:2], index, given)
    assert len(seen) == sum(isinstance(m, ldm.ResBlock) for m in unet.modules())
    for block, out in seen:
        factor = 8 // out.shape[-2]
        for n in range(3):
            label = unet.label_emb(given["y"][n : n + 1]) if unet.num_classes else 0
            for level in range(2):
                timestep = LEVELS[level : level + 1]
                emb = unet.time_embed(ldm_embedding(timestep, unet.model_channels)) + label
                own = out[n][:, index[n, 0, ::factor, ::factor] == level]
                assert own.numel() > 0
                torch.testing.assert_close(own, block.emb_layers(emb).T.expand_as(own), rtol=1e-4, atol=1e-5)


def _embeddings(unet: nn.Module, timesteps: Tensor, index: Tensor, given: dict) -> list[tuple[nn.Module, Tensor]]:
    """What every ResBlock adds to its feature map."""
    pixels, seen = UNET.timesteps(unet), []
    pixels.attach()
    blocks = [m for m in unet.modules() if isinstance(m, ldm.ResBlock)]
    own = [
        # Registered later, so it sees what the block gets; the call inside the core's own hook is
        # the other shape.
        block.emb_layers.register_forward_hook(
            lambda module, args, out, block=block: seen.append((block, out)) if out.dim() == 4 else None
        )
        for block in blocks
    ]
    with pixels.use(timesteps, index):
        unet(**given)
    pixels.detach()
    for handle in own:
        handle.remove()
    return seen


@pytest.mark.parametrize("kind", ["plain", "labels"])
def test_each_row_of_a_batch_has_its_own_map(kind):
    unet = unet_of(kind)
    given, index = inputs(unet), random_index(3)
    together = with_map(unet, LEVELS[:3], index, given)
    for n in range(3):
        alone = with_map(unet, LEVELS[:3], index[n : n + 1], {name: value[n : n + 1] for name, value in given.items()})
        torch.testing.assert_close(together[n : n + 1], alone, rtol=1e-4, atol=1e-5)
    assert (together - with_map(unet, LEVELS[:3], index.flip(0), given)).abs().mean() > 1e-3


@pytest.mark.parametrize("kind", ["plain", "labels"])
def test_a_row_without_lagging_pixels_is_the_plain_one_to_the_bit_beside_one_with_them(kind):
    unet = unet_of(kind)
    given, index = inputs(unet), random_index(4)
    index[1] = 0
    plain, out = unet(**given), with_map(unet, LEVELS, index, given)
    assert torch.equal(out[1], plain[1])
    assert not torch.equal(out[0], plain[0])


@pytest.mark.parametrize("kind", ["plain", "labels"])
@pytest.mark.parametrize("levels", [2, 4])
def test_linear_layers_run_once_more_per_block_whatever_the_number_of_pixels(kind, levels):
    unet = unet_of(kind)
    blocks = sum(isinstance(m, ldm.ResBlock) for m in unet.modules())
    counts = []
    for h, w in [(4, 4), (16, 24)]:
        index = random_index(2, 3, h, w)  # as where a table holds levels of no pixel
        calls, rows = _linear_calls(
            unet, lambda h=h, w=w, i=index: with_map(unet, LEVELS[:levels], i, inputs(unet, 3, h, w))
        )
        counts.append((calls, rows))
    lagging = (levels - 1) * (3 if unet.num_classes else 1)
    # Beside the lagging levels a place is kept for every row of the batch.
    assert counts[0] == counts[1] == (2 * blocks + 2 * 2, blocks * (3 + lagging) + 2 * (3 + 3 + levels - 1))


def test_a_single_level_costs_no_linear_layer():
    unet = unet_of("labels")
    index, given = torch.zeros(3, 1, 8, 12, dtype=torch.int64), inputs(unet)
    plain = _linear_calls(unet, lambda: unet(**given))
    assert _linear_calls(unet, lambda: with_map(unet, LEVELS[:1], index, given)) == plain


def _linear_calls(unet: nn.Module, call) -> tuple[int, int]:
    """The evaluations of the embedding's linear layers, and the rows of all of them."""
    seen: list[int] = []
    owners = [unet.time_embed, *(m.emb_layers for m in unet.modules() if isinstance(m, ldm.ResBlock))]
    handles = [
        m.register_forward_hook(lambda module, args, out: seen.append(args[0].shape[0]))
        for owner in owners
        for m in owner
        if isinstance(m, nn.Linear)
    ]
    call()
    for handle in handles:
        handle.remove()
    return len(seen), sum(seen)


def test_hooks_are_there_between_attach_and_detach_only():
    unet = unet_of("labels")
    before = hooks_on(unet)
    pixels = UNET.timesteps(unet)
    assert hooks_on(unet) == before
    pixels.attach()
    assert hooks_on(unet) > before
    pixels.detach()
    assert hooks_on(unet) == before


def test_nothing_happens_outside_use():
    unet = unet_of("labels")
    given, index = inputs(unet), random_index(4)
    plain = unet(**given)
    pixels = UNET.timesteps(unet)
    pixels.attach()
    assert torch.equal(unet(**given), plain)
    with pixels.use(LEVELS, index):
        inside = unet(**given)
    assert torch.equal(unet(**given), plain)
    with pytest.raises(KeyboardInterrupt), pixels.use(LEVELS, index):
        raise KeyboardInterrupt
    assert torch.equal(unet(**given), plain)
    with pixels.use(LEVELS, index):
        assert torch.equal(unet(**given), inside)
    pixels.detach()
    assert torch.equal(unet(**given), plain)
    assert not torch.equal(inside, plain)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_of_somebody_else_within_the_call_has_the_calls_own_timestep(kind):
    unet = unet_of(kind)
    given, index = inputs(unet), random_index(4)
    expected, other = with_map(unet, LEVELS, index, given), unet(**given | {"x": given["x"].flip(0, 2)})
    made = send_another_first(unet)
    pixels = UNET.timesteps(unet)
    pixels.attach()
    for _ in range(2):
        with pixels.use(LEVELS, index):
            assert torch.equal(unet(**given), expected)
        assert torch.equal(made.pop(), other)
    with pytest.raises(RuntimeError), pixels.use(LEVELS, index):
        unet(**given | {"x": given["x"][:, :3]})
    with pixels.use(LEVELS, index):
        assert torch.equal(unet(**given), expected)
    pixels.detach()


def test_the_batch_is_known_in_another_precision():
    unet = unet_of("plain")
    given, index = inputs(unet), random_index(4)
    expected, own = with_map(unet, LEVELS, index, given), unet.forward
    unet.forward = lambda x, *args, **kwargs: own(x.float(), *args, **kwargs)
    assert torch.equal(with_map(unet, LEVELS, index, given | {"x": given["x"].double()}), expected)


def test_a_forward_that_changes_the_batch_is_known_from_the_second_call_on():
    unet = unet_of("plain")
    given, index = inputs(unet), random_index(4)
    changed = given | {"x": given["x"] * 1.1}
    expected, plain, own = with_map(unet, LEVELS, index, changed), unet(**changed), unet.forward
    unet.forward = lambda x, *args, **kwargs: own(x * 1.1, *args, **kwargs)
    pixels = UNET.timesteps(unet)
    pixels.attach()
    outputs = []
    for _ in range(3):
        with pixels.use(LEVELS, index):
            outputs.append(unet(**given))
    pixels.detach()
    assert torch.equal(outputs[0], plain)  # in a run all pixels are still at one timestep then
    assert torch.equal(outputs[1], expected)
    assert torch.equal(outputs[2], expected)


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_blocks_of_another_size_take_their_own_pixels(scale):
    """Another extension may change the resolution inside the model."""
    unet, small = unet_of("plain"), unet_of("plain")
    given, index = inputs(unet), random_index(4)
    resized = [nn.functional.interpolate(t, scale_factor=scale) for t in (given["x"], index.double())]
    inner = inputs(unet) | {"x": resized[0]}
    expected = with_map(small, LEVELS, resized[1].long(), inner)

    class Resized(nn.Module):
        def __init__(self, block: nn.Module, scale: float):
            super().__init__()
            self.block, self.scale = block, scale

        def forward(self, x: Tensor, *args: object) -> Tensor:
            return self.block(nn.functional.interpolate(x, scale_factor=self.scale), *args)

    unet.input_blocks[0] = Resized(unet.input_blocks[0], scale)
    assert torch.equal(with_map(unet, LEVELS, index, given), expected)


@pytest.mark.parametrize("memory", [0, 4 * 3 * 2 * 3 * 130, 2**30])
@pytest.mark.parametrize("kind", ["three levels", "labels"])
def test_what_is_made_ahead_for_the_next_blocks_is_what_each_would_make(kind, memory, monkeypatch):
    """The sizes inside may be others than in the call before, as an extension makes them."""
    monkeypatch.setattr(conditioning, "SPREAD", memory)
    unet, index = unet_of(kind), random_index(4)
    sizes = [(8, 12), (8, 12), (16, 8), (16, 8), (8, 12)]
    pixels, given, made = UNET.timesteps(unet), [inputs(unet, 3, *size) for size in sizes], []
    pixels.attach()
    for own in given:
        with pixels.use(LEVELS, index):
            made.append(unet(**own))
    pixels.detach()
    monkeypatch.setattr(conditioning, "SPREAD", 0)
    for own, out in zip(given, made, strict=True):
        assert torch.equal(out, with_map(unet, LEVELS, index, own))


def test_blocks_after_each_other_are_served_by_one_gather():
    unet, index, counts = unet_of("three levels"), random_index(4), []
    pixels, given = UNET.timesteps(unet), inputs(unet)
    pixels.attach()
    for _ in range(2):
        with Operations() as counted, pixels.use(LEVELS, index):
            unet(**given)
        counts.append(counted.computing["index_select"])
    pixels.detach()
    runs = 1 + sum(a != b for a, b in pairwise(_sizes_of_blocks(unet, given)))
    # And the pixels of each size are found.
    assert counts[0] - counts[1] == len(parts.res_blocks(unet)) - runs + 2


def _sizes_of_blocks(unet: nn.Module, given: dict) -> list[tuple[int, int]]:
    sizes: list[tuple[int, int]] = []
    handles = [
        block.register_forward_hook(lambda module, args, out: sizes.append(tuple(out.shape[-2:])))
        for block in parts.res_blocks(unet)
    ]
    unet(**given)
    for handle in handles:
        handle.remove()
    return sizes


def test_a_failed_call_leaves_the_next_one_right():
    unet = unet_of("plain")
    given, index = inputs(unet), random_index(4)
    expected = with_map(unet, LEVELS, index, given)
    pixels = UNET.timesteps(unet)
    pixels.attach()
    with pytest.raises(RuntimeError), pixels.use(LEVELS, index):
        unet(given["x"][:, :3], given["timesteps"], given["context"])
    with pixels.use(LEVELS, index):
        assert torch.equal(unet(**given), expected)
    pixels.detach()


@pytest.mark.parametrize("channels", [8, 32, 33])
def test_the_timestep_embedding_is_ldms_to_the_bit(channels):
    t = torch.tensor([0.0, 1.0, 17.25, 500.5, 999.0])
    assert torch.equal(timestep_embedding(t, channels), ldm_embedding(t, channels))
    assert torch.equal(timestep_embedding(t.double(), channels), ldm_embedding(t, channels))


def test_another_kind_of_model_is_unsupported_and_named():
    with pytest.raises(Unsupported, match=r"Linear.*time_embed"):
        models.of(nn.Linear(2, 2))


@pytest.mark.skipif(not hasattr(torch, "compile"), reason="this torch cannot compile")
@pytest.mark.parametrize("how", ["around it", "in place", "its forward"])
def test_a_compiled_model_is_unsupported_and_says_so(how):
    unet = tiny_unet()
    if how == "around it":
        unet = torch.compile(unet)
    elif how == "in place":
        if not hasattr(unet, "compile"):
            pytest.skip("modules of this torch cannot compile in place")
        unet.compile()
    else:
        unet.forward = torch.compile(unet.forward)
    with pytest.raises(Unsupported, match=r"UNetModel.* is compiled \(torch.compile"):
        UNET.check(unet)


def _compiled_around(part: nn.Module) -> nn.Module:
    return torch.compile(part)


def _compiled_in_place(part: nn.Module) -> nn.Module:
    if not hasattr(part, "compile"):
        pytest.skip("modules of this torch cannot compile in place")
    part.compile()
    return part


def _compiled_forward(part: nn.Module) -> nn.Module:
    part.forward = torch.compile(part.forward)
    return part


class Graphed(nn.Module):
    """What a script or a graph is made of."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def _scripted(part: nn.Module) -> nn.Module:
    return torch.jit.script(Graphed())


def _graphed(part: nn.Module) -> nn.Module:
    """As torch.cuda.make_graphed_callables leaves a module, which needs a GPU."""

    def make_graphed_callables() -> object:
        def make_graphed_forward() -> object:
            return lambda *args: part

        return make_graphed_forward()

    part.forward = make_graphed_callables()
    return part


def _not_python(part: nn.Module) -> nn.Module:
    part.forward = torch.jit.script(Graphed()).forward
    return part


WAYS = [_compiled_around, _compiled_in_place, _compiled_forward, _scripted, _graphed, _not_python]


@pytest.mark.skipif(not hasattr(torch, "compile"), reason="this torch cannot compile")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "where",
    [
        *("input_blocks.1", "input_blocks.1.0", "input_blocks.1.0.emb_layers", "input_blocks.1.0.emb_layers.1"),
        *("input_blocks.1.0.in_layers.2", "time_embed", "time_embed.2", "label_emb", "middle_block.1"),
        *("middle_block.1.transformer_blocks.0", "middle_block.1.transformer_blocks.0.attn2"),
        *("middle_block.1.transformer_blocks.0.attn2.to_q", "middle_block.1.transformer_blocks.0.attn2.to_k"),
    ],
)
def test_a_compiled_part_is_unsupported_and_named_where_calls_in_it_are_watched(where, way):
    unet = tiny_unet(num_classes=5)
    parent, _, name = where.rpartition(".")
    part = unet.get_submodule(where)
    setattr(unet.get_submodule(parent), name, way(part))
    with pytest.raises(Unsupported, match="compiled"):
        UNET.check(unet)


@pytest.mark.skipif(not hasattr(torch, "compile"), reason="this torch cannot compile")
@pytest.mark.parametrize("way", WAYS)
def test_a_compiled_part_that_nobody_watches_is_nothing_to_us(way):
    unet = tiny_unet()
    block = unet.middle_block[1].transformer_blocks[0]
    block.attn1.to_q, block.ff = way(block.attn1.to_q), way(block.ff)
    UNET.check(unet)


@pytest.mark.parametrize("changed", ["a block", "the time embedding", "nothing"])
@pytest.mark.parametrize("kind", ["plain", "labels"])
def test_calls_to_come_are_prepared_and_know_changed_weights(kind, changed):
    """A LoRA may be switched in the middle of a run; what was prepared before must not outlive
    that."""
    unet = unet_of(kind)
    given, index = inputs(unet), random_index(4)
    tables = [LEVELS, LEVELS + 0.5, LEVELS - 1.25]
    pixels = UNET.timesteps(unet)
    pixels.attach()
    for at, levels in enumerate(tables):
        here = {**given, "timesteps": torch.full((3,), levels[0].item())}
        if at == 1 and changed != "nothing":
            layer = unet.input_blocks[1][0].emb_layers[1] if changed == "a block" else unet.time_embed[0]
            with torch.no_grad():
                layer.weight.mul_(1.5)
        with pixels.use(levels, index, tables[at + 1 :]):
            made = unet(**here)
        alone = unet_of(kind)
        alone.load_state_dict(unet.state_dict())
        torch.testing.assert_close(made, with_map(alone, levels, index, here), rtol=1e-5, atol=1e-6)
    pixels.detach()


def test_prepared_calls_serve_batches_of_any_size_in_turn():
    """A host that lacks memory sends conditional and unconditional rows in calls of their own."""
    unet = unet_of("plain")
    tables = [LEVELS, LEVELS + 0.5, LEVELS - 1.25]
    pixels = UNET.timesteps(unet)
    pixels.attach()
    for at, levels in enumerate(tables):
        for n in (2, 1, 2):
            here = {**inputs(unet, n), "timesteps": torch.full((n,), levels[0].item())}
            index = random_index(4, n)
            with pixels.use(levels, index, tables[at + 1 :]):
                made = unet(**here)
            alone = unet_of("plain")
            torch.testing.assert_close(made, with_map(alone, levels, index, here), rtol=1e-5, atol=1e-6)
    pixels.detach()


def test_a_prepared_call_in_another_precision_has_the_plain_values():
    unet = unet_of("plain")
    tables = [LEVELS, LEVELS + 0.5]
    index = torch.zeros(3, 1, 8, 12, dtype=torch.int64)
    pixels = UNET.timesteps(unet)
    pixels.attach()
    with torch.autocast("cpu", torch.bfloat16), pixels.use(tables[0], index, tables[1:]):
        unet(**inputs(unet))
    here = {**inputs(unet), "timesteps": torch.full((3,), tables[1][0].item())}
    with pixels.use(tables[1], index):
        made = unet(**here)
    pixels.detach()
    assert torch.equal(made, unet(**here))


def test_prepared_calls_cost_no_linear_layers_of_their_own(monkeypatch):
    unet = unet_of("plain")
    given, index = inputs(unet), random_index(4)
    tables = [LEVELS, LEVELS + 0.5, LEVELS - 1.25]
    calls, counts, forward = [], [], nn.Linear.forward
    layers = [block.emb_layers[1] for block in parts.res_blocks(unet)]

    def counted(self: nn.Linear, x: Tensor) -> Tensor:
        calls.extend([1] * (self in layers))
        return forward(self, x)

    monkeypatch.setattr(nn.Linear, "forward", counted)  # a hook on one would be a reason not to prepare
    pixels = UNET.timesteps(unet)
    pixels.attach()
    for at, levels in enumerate(tables):
        calls.clear()
        with pixels.use(levels, index, tables[at + 1 :]):
            unet(**given)
        counts.append(len(calls))
    pixels.detach()
    blocks = len(parts.res_blocks(unet))
    assert counts == [2 * blocks, blocks, blocks]


def test_what_was_prepared_is_gone_when_the_last_call_of_it_is_past():
    unet = unet_of("plain")
    given, index = inputs(unet), random_index(4)
    tables = [LEVELS, LEVELS + 0.5, LEVELS - 1.25]
    pixels = UNET.timesteps(unet)
    pixels.attach()
    prepared = []
    for levels, coming in ((tables[0], tables[1:2]), (tables[1], ()), (tables[2], ())):
        with pixels.use(levels, index, coming):
            unet(**given)
        prepared.append(len(pixels._tables._chunks))
    pixels.detach()
    assert prepared == [1, 1, 0]
