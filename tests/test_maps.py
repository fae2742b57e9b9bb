"""Token maps on ldm's own UNet, against softmax(q·kᵀ·scale) worked out head by head."""

from __future__ import annotations

import pytest
import torch
from stand_ins import AttendingUNet, hooks_on, tiny_unet
from test_conditioning import odd_sizes, send_another_first  # noqa: F401
from torch import Tensor, nn

from asyndm_lib.errors import Unsupported
from asyndm_lib.models.family import TokenMaps
from asyndm_lib.models.parts import attention_sum
from asyndm_lib.models.parts.attention_sum import AttentionSum, Layer, columns, summed, summed_fused
from asyndm_lib.models.parts.resampling import resize
from asyndm_lib.models.unet import FAMILY as UNET
from asyndm_lib.models.unet import PLAIN, halved, token_map_layers

TARGETS = 3

NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


def attending_unet(*resolutions: int) -> nn.Module:
    """A UNet of three levels without self-attention, whose work grows with the square of the
    pixels."""
    return tiny_unet(
        channel_mult=(1, 1, 2),
        attention_resolutions=list(resolutions),
        disable_self_attentions=[True] * 3,
        disable_middle_self_attn=True,
    )


def inputs(n: int, h: int, w: int, context: int) -> dict:
    random = torch.Generator().manual_seed(h * w + context)
    return {
        "x": torch.randn(n, 4, h, w, generator=random),
        "timesteps": torch.full((n,), 500.0),
        "context": torch.randn(n, context, 8, generator=random) * 4,
    }


def weights(row: int, context: int) -> Tensor:
    """The weights of a row and a target: another few tokens for each."""
    random = torch.Generator().manual_seed(row)
    return torch.rand(154, TARGETS, generator=random)[:context]


def taken_from(maps: TokenMaps) -> dict:
    """The maps by row."""
    rows, means, _ = maps.take()
    assert len(rows) == len(means)
    return dict(zip(rows, means, strict=True))


class Projections:
    """The projections that ``to_q`` and ``to_k`` of every cross-attention gave, by the attention's
    name."""

    def __init__(self, unet: nn.Module):
        self.q: dict[str, Tensor] = {}
        self.k: dict[str, Tensor] = {}
        self.attentions = {name: m for name, m in unet.named_modules() if name.endswith("attn2")}
        for name, attention in self.attentions.items():
            attention.to_q.register_forward_hook(lambda m, args, out, name=name: self.q.update({name: out}))
            attention.to_k.register_forward_hook(lambda m, args, out, name=name: self.k.update({name: out}))

    def slowly(self, pixels: int, row: int, weights: Tensor) -> Tensor:
        """The mean over the layers of that many pixels and their heads, ``[T, pixels]``."""
        maps = []
        for name, attention in self.attentions.items():
            if self.q[name].shape[1] != pixels:
                continue
            width = self.q[name].shape[2] // attention.heads
            for head in range(attention.heads):
                q = self.q[name][row, :, head * width : (head + 1) * width].double()
                k = self.k[name][row, :, head * width : (head + 1) * width].double()
                scores = torch.stack([(q * key).sum(dim=1) for key in k], dim=1) * attention.scale
                probability = scores.exp() / scores.exp().sum(dim=1, keepdim=True)
                maps.append(torch.stack([(probability * column).sum(dim=1) for column in weights.T.double()]))
        return sum(maps) / len(maps)


SIZES = [
    ((48, 64), (12, 16)),  # 1/4
    ((49, 51), (13, 13)),
    ((50, 48), (13, 12)),
    ((47, 64), (24, 32)),  # small: 1/2
    ((16, 24), (8, 12)),
    ((41, 65), (21, 33)),
]


@pytest.mark.parametrize(("size", "expected"), SIZES)
@pytest.mark.parametrize("context", [77, 154])
@pytest.mark.usefixtures("odd_sizes")
def test_maps_are_the_softmax_of_the_wanted_level_head_by_head(size, expected, context):
    unet = attending_unet(4, 2, 1)
    projections, maps = Projections(unet), UNET.token_maps(unet, size)
    maps.attach()
    with maps.record([None, 5], weights):
        unet(**inputs(2, *size, context))
    taken = taken_from(maps)
    assert list(taken) == [5]
    assert maps.size == expected
    assert taken[5].shape == (TARGETS, *expected)
    slow = projections.slowly(expected[0] * expected[1], 1, weights(5, context))
    torch.testing.assert_close(taken[5].flatten(1).double(), slow, rtol=1e-4, atol=1e-6)
    assert taken[5].std(dim=(1, 2)).min() > 1e-4, "a flat map proves nothing"
    maps.detach()


def test_only_the_named_rows_are_recorded_each_with_its_own_weights():
    unet = attending_unet(4, 2, 1)
    projections, maps = Projections(unet), UNET.token_maps(unet, (16, 24))
    maps.attach()
    given = inputs(5, 16, 24, 77)
    for rows in ([None, 0, None, 7, 2], [0, 7, 2, None, None], [4, None, None, None, 1]):
        with maps.record(rows, weights):
            unet(**given)
        taken = taken_from(maps)
        assert sorted(taken) == sorted(row for row in rows if row is not None)
        for at, row in enumerate(rows):
            if row is not None:
                slow = projections.slowly(8 * 12, at, weights(row, 77))
                torch.testing.assert_close(taken[row].flatten(1).double(), slow, rtol=1e-4, atol=1e-6)
    maps.detach()


def test_rows_recorded_in_several_calls_of_any_context_are_those_of_one_call():
    unet = attending_unet(4, 2, 1)
    projections, maps = Projections(unet), UNET.token_maps(unet, (16, 24))
    maps.attach()
    given = inputs(4, 16, 24, 77)
    with maps.record([0, 1, 2, None], weights):
        unet(**given)
    together = taken_from(maps)
    for rows, at in (([0], [0]), ([1, 2], [1, 2]), ([None], [3])):
        with maps.record(rows, weights):
            unet(**{name: value[at] for name, value in given.items()})
    sliced = taken_from(maps)
    assert sorted(sliced) == [0, 1, 2]
    for row in range(3):
        torch.testing.assert_close(sliced[row], together[row], rtol=1e-5, atol=1e-7)
    longer = inputs(1, 16, 24, 154)
    with maps.record([0], weights):
        unet(**{name: value[:1] for name, value in given.items()})
    with maps.record([1], weights):
        unet(**longer)
    mixed = taken_from(maps)
    torch.testing.assert_close(mixed[0], together[0], rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(
        mixed[1].flatten(1).double(), projections.slowly(8 * 12, 0, weights(1, 154)), rtol=1e-4, atol=1e-6
    )
    maps.detach()


def test_what_somebody_evaluates_again_within_a_record_is_not_read():
    unet = attending_unet(2)
    projections, maps = Projections(unet), UNET.token_maps(unet, (16, 24))
    maps.attach()
    with maps.record([0], weights):
        unet(**inputs(1, 16, 24, 77))
        expected = projections.slowly(8 * 12, 0, weights(0, 77))
        unet(**inputs(1, 16, 24, 154))
        unet(**inputs(3, 16, 24, 77))
    torch.testing.assert_close(taken_from(maps)[0].flatten(1).double(), expected, rtol=1e-4, atol=1e-6)
    maps.detach()


@pytest.mark.parametrize("at", ["first", "last"])
def test_a_batch_of_another_size_within_a_record_is_not_read(at):
    unet = attending_unet(2)
    projections, maps = Projections(unet), UNET.token_maps(unet, (16, 24))
    maps.attach()
    with maps.record([None, 0], weights):
        for rows in (1, 2) if at == "first" else (2, 1):
            unet(**inputs(rows, 16, 24, 77))
            if rows == 2:
                expected = projections.slowly(8 * 12, 1, weights(0, 77))
    torch.testing.assert_close(taken_from(maps)[0].flatten(1).double(), expected, rtol=1e-4, atol=1e-6)
    maps.detach()


def test_a_target_that_is_every_token_has_a_map_of_ones():
    unet = attending_unet(2)
    maps = UNET.token_maps(unet, (16, 24))
    maps.attach()
    with maps.record([0], lambda row, context: torch.ones(context, 1)):
        unet(**inputs(1, 16, 24, 77))
    torch.testing.assert_close(taken_from(maps)[0], torch.ones(1, 8, 12))
    maps.detach()


def test_taking_empties_the_record():
    unet = attending_unet(2)
    maps = UNET.token_maps(unet, (16, 24))
    maps.attach()
    for _ in range(2):
        with maps.record([3], weights):
            unet(**inputs(1, 16, 24, 77))
        once = taken_from(maps)[3]
        assert taken_from(maps) == {}
    with maps.record([3], weights):
        unet(**inputs(1, 16, 24, 77))
    assert torch.equal(taken_from(maps)[3], once)
    with maps.record([3], weights):
        unet(**inputs(1, 16, 24, 77))
    maps.clear()
    assert taken_from(maps) == {}
    maps.detach()


def test_nothing_is_recorded_outside_record_nor_of_rows_that_are_none():
    unet = attending_unet(2)
    maps = UNET.token_maps(unet, (16, 24))
    maps.attach()
    given = inputs(1, 16, 24, 77)
    unet(**given)
    with maps.record([None], weights):
        unet(**given)
    with pytest.raises(KeyboardInterrupt), maps.record([0], weights):
        raise KeyboardInterrupt
    unet(**given)
    assert taken_from(maps) == {}
    maps.detach()


@pytest.mark.parametrize("size", [(8, 12), (24, 32), (11, 17)])
@pytest.mark.usefixtures("odd_sizes")
def test_layers_of_another_size_than_expected_are_read_at_theirs(size):
    """Another extension may shrink or widen the picture inside the model."""
    unet = attending_unet(4, 2, 1)
    projections, maps = Projections(unet), UNET.token_maps(unet, (16, 24))
    maps.attach()
    with maps.record([0], weights):
        unet(**inputs(1, *size, 77))
    taken = taken_from(maps)[0]
    here = halved(size[0], 2), halved(size[1], 2)
    slow = resize(projections.slowly(here[0] * here[1], 0, weights(0, 77)).unflatten(1, here), 8, 12)
    torch.testing.assert_close(taken.double(), slow, rtol=1e-4, atol=1e-6)
    maps.detach()


def test_layers_with_other_pixels_than_their_feature_map_are_not_read():
    unet = attending_unet(2)
    # As where another extension merges pixels.
    for layer in token_map_layers(unet, 16, 24).attentions:
        layer.to_q.register_forward_hook(lambda module, args, output: output[:, ::2])
        layer.register_forward_hook(lambda module, args, output: output.repeat_interleave(2, dim=1))
    maps = UNET.token_maps(unet, (16, 24))
    maps.attach()
    with maps.record([0], weights):
        unet(**inputs(1, 16, 24, 77))
    assert taken_from(maps) == {}
    maps.detach()


def test_a_batch_of_somebody_else_within_the_call_is_not_read():
    unet = attending_unet(2)
    given = inputs(2, 16, 24, 77)
    maps = UNET.token_maps(unet, (16, 24))
    maps.attach()
    with maps.record([None, 5], weights):
        unet(**given)
    alone = taken_from(maps)[5]
    send_another_first(unet)
    for _ in range(2):
        with maps.record([None, 5], weights):
            unet(**given)
        assert torch.equal(taken_from(maps)[5], alone)
    maps.detach()


@pytest.mark.parametrize("family", [UNET, PLAIN], ids=["fast", "plain"])
@pytest.mark.parametrize("lengths", [1, 2])
def test_rows_that_another_extension_adds_in_the_attentions_are_not_the_calls(lengths, family):
    """Forge Couple asks for the conditional rows again with every line's prompt, and pads."""
    given, size = inputs(5, 16, 24, 77), (16, 24)
    given["context"][4] = given["context"][3]  # two images with one prompt
    order = [0, 1, 0, 2, 2, 3, 4, 3, 4, 0]  # the first row is unconditional, then images 1 to 4
    own = [0, 1, 3, 5, 6]
    lines = torch.randn(len(order), 77, 8, generator=torch.Generator().manual_seed(9))

    def before(module, args, kwargs):
        added = torch.ones(len(order), 1, 1).index_fill(0, torch.tensor(own), 0) > 0
        context = torch.where(added, lines, kwargs["context"][order])
        return (args[0][order],), {**kwargs, "context": context.repeat(1, lengths, 1)}

    taken = []
    for added in (False, True):
        unet = attending_unet(4, 2, 1)
        for name, module in unet.named_modules():
            if added and name.endswith("attn2"):
                module.register_forward_pre_hook(before, with_kwargs=True)
                module.register_forward_hook(lambda module, args, output: output[own])
        maps = family.token_maps(unet, size)
        maps.attach()
        with maps.record([None, 1, None, 3, 4], lambda row, context: weights(row, 77).repeat(context // 77, 1)):
            unet(**given)
        taken.append(taken_from(maps))
    assert list(taken[0]) == list(taken[1]) == [1, 3, 4]
    for row in taken[0]:
        torch.testing.assert_close(taken[1][row], taken[0][row], rtol=1e-4, atol=1e-6)


def test_rows_of_other_prompts_alone_are_not_read():
    unet = attending_unet(4, 2, 1)
    for name, module in unet.named_modules():
        if name.endswith("attn2"):
            module.register_forward_pre_hook(
                lambda module, args, kwargs: ((args[0][[0, 1, 1]],), {"context": kwargs["context"][[0, 0, 0]]}),
                with_kwargs=True,
            )
            module.register_forward_hook(lambda module, args, output: output[:2])
    maps = UNET.token_maps(unet, (16, 24))
    maps.attach()
    with maps.record([None, 1], weights):
        unet(**inputs(2, 16, 24, 77))
    assert maps.take().rows == []


def test_the_unets_output_is_the_same_to_the_bit_while_recording():
    unet = attending_unet(4, 2, 1)
    given = inputs(3, 16, 24, 77)
    plain = unet(**given)
    maps = UNET.token_maps(unet, (16, 24))
    maps.attach()
    with maps.record([0, None, 1], weights):
        assert torch.equal(unet(**given), plain)
    assert len(taken_from(maps)) == 2
    assert torch.equal(unet(**given), plain)
    maps.detach()
    assert torch.equal(unet(**given), plain)


def test_hooks_are_there_between_attach_and_detach_only():
    unet = attending_unet(4, 2, 1)
    maps = UNET.token_maps(unet, (16, 24))
    assert hooks_on(unet) == 0
    maps.attach()
    assert hooks_on(unet) > 0
    maps.detach()
    assert hooks_on(unet) == 0


@pytest.mark.parametrize(
    ("resolutions", "size", "factor"),
    [
        ([4, 2, 1], (48, 48), 4),
        ([4, 2, 1], (128, 96), 4),
        ([4, 2, 1], (47, 128), 2),
        ([4, 2, 1], (128, 47), 2),
        ([4, 1], (32, 32), 1),  # no 1/2: of 1 and 4, 1 is the nearer
        ([4], (32, 32), 4),
        ([2, 1], (64, 64), 4),  # the middle block attends at 1/4 in any case
    ],
)
def test_the_layers_are_those_of_a_quarter_or_of_half_for_small_latents(resolutions, size, factor):
    unet = attending_unet(*resolutions)
    projections = Projections(unet)
    unet(**inputs(1, 32, 64, 77))
    pixels = 32 // factor * 64 // factor
    wanted = [a for name, a in projections.attentions.items() if projections.q[name].shape[1] == pixels]
    found = token_map_layers(unet, *size)
    assert [id(layer) for layer in found.attentions] == [id(a) for a in wanted]
    assert found.size == (-(-size[0] // factor), -(-size[1] // factor))


def test_levels_are_found_where_blocks_resize_themselves():
    unet = tiny_unet(channel_mult=(1, 1, 2), attention_resolutions=[4, 2, 1], resblock_updown=True)
    projections = Projections(unet)
    unet(**inputs(1, 16, 16, 77))
    for size, pixels in (((48, 48), 16), ((16, 16), 64)):
        layers = token_map_layers(unet, *size).attentions
        expected = [a for name, a in projections.attentions.items() if projections.q[name].shape[1] == pixels]
        assert [id(layer) for layer in layers] == [id(a) for a in expected]


def test_a_side_is_halved_as_strided_convolutions_do():
    def strided(size: int) -> int:
        return nn.functional.conv1d(torch.zeros(1, 1, size), torch.zeros(1, 1, 3), stride=2, padding=1).shape[-1]

    for size in range(1, 200):
        once = strided(size)
        assert (halved(size, 1), halved(size, 2), halved(size, 4)) == (size, once, strided(once))


def test_half_precision_is_computed_in_single():
    random = torch.Generator().manual_seed(6)
    q = torch.randn(1, 20, 16, generator=random).half() * 300  # q·kᵀ leaves half precision's range
    k = torch.randn(1, 77, 16, generator=random).half() * 300

    def mean(query: Tensor, key: Tensor) -> Tensor:
        sum = AttentionSum(slice(0, 1), lambda context, device, dtype: torch.eye(context, dtype=dtype)[None])
        sum.add(query, key, Layer(2, 1.0))
        return sum.mean()

    with torch.autocast("cpu", torch.bfloat16):
        out = mean(q, k)
    assert out.dtype == torch.float32
    assert torch.isfinite(out).all()
    torch.testing.assert_close(out, mean(q.float(), k.float()), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("targets", "heads", "d", "context"), [(1, 8, 40, 77), (3, 5, 64, 77), (8, 2, 160, 154), (9, 20, 64, 231)]
)
@pytest.mark.parametrize(
    ("device", "dtype"),
    [
        ("cpu", torch.float32),
        pytest.param("cuda", torch.float32, marks=NO_GPU),
        pytest.param("cuda", torch.float16, marks=NO_GPU),
    ],
)
def test_the_fused_kernel_gives_the_sum_of_the_slow_computation(device, dtype, targets, heads, d, context):
    random = torch.Generator().manual_seed(8)
    # As the layers have them: a head's numbers side by side in a row of all heads'.
    q, k = (torch.randn(2, n, heads * d, generator=random).view(2, n, heads, d).transpose(1, 2) for n in (96, context))
    q, k = q.to(device, dtype), k.to(device, dtype)
    weights = torch.rand(2, context, targets, generator=random).to(device)
    scale = d**-0.5
    attention = (q.double() @ k.double().transpose(-1, -2) * scale).softmax(dim=-1)
    expected = (attention @ weights.double()[:, None]).sum(dim=1)
    rtol = 2e-3 if dtype == torch.float16 else 1e-5
    for way in (summed_fused,) if dtype == torch.float16 else (summed, summed_fused):
        maps = way(q, k, columns(weights, dtype), scale)
        assert maps.dtype == torch.float32
        torch.testing.assert_close(maps[..., :targets].double(), expected, rtol=rtol, atol=1e-6)
        assert not maps[..., targets:].any()


@pytest.mark.parametrize("memory", [0, 5 * 20 * 77 * 4 * 2, 2**30])
def test_many_layers_at_once_or_one_by_one_have_the_same_mean(memory, monkeypatch):
    monkeypatch.setattr(attention_sum, "MEMORY", memory)
    random = torch.Generator().manual_seed(7)
    weights = torch.rand(1, 77, 3, generator=random)
    sum, expected = AttentionSum(slice(0, 1), lambda context, device, dtype: weights), []
    for heads in [2] * 11 + [4, 2]:
        q, k = (torch.randn(1, n, 16, generator=random) for n in (20, 77))
        sum.add(q, k, Layer(heads, 0.5))
        q_h, k_h = (t.view(-1, heads, 16 // heads).transpose(0, 1) for t in (q[0], k[0]))
        expected += list((q_h @ k_h.transpose(1, 2) * 0.5).softmax(-1) @ weights[0])
    assert sum.heads == len(expected)
    torch.testing.assert_close(sum.mean()[0], torch.stack(expected).mean(dim=0))


@pytest.mark.parametrize("touched", ["query", "key", "neither"])
@pytest.mark.parametrize("inference", [False, True])
def test_an_attention_that_writes_into_its_projections_changes_no_map(touched, inference):
    unet = attending_unet(4, 2, 1)

    def run() -> Tensor:
        """The maps of three calls of one run."""
        maps = UNET.token_maps(unet, (16, 24))
        maps.attach()
        given = inputs(2, 16, 24, 77)
        made = []
        for _ in range(3):
            with maps.record([0, None], weights):
                unet(**given)
            made.append(taken_from(maps)[0])
        maps.detach()
        return torch.stack(made)

    def written_to(module: nn.Module, name: str) -> None:
        last = []
        getattr(module, name).register_forward_hook(lambda m, args, output: last.append(output))

        def wipe(m: nn.Module, args: tuple) -> None:
            last.pop().zero_()

        module.to_out.register_forward_pre_hook(wipe)

    with torch.inference_mode(inference):
        expected = run()
        if touched != "neither":
            for module in [m for name, m in unet.named_modules() if name.endswith("attn2")]:
                written_to(module, {"query": "to_q", "key": "to_k"}[touched])
        assert torch.equal(run(), expected)


def test_a_model_without_cross_attention_is_unsupported():
    unet = AttendingUNet()
    unet.input_blocks = nn.ModuleList([nn.Identity()])
    with pytest.raises(Unsupported, match="no cross-attention"):
        UNET.token_maps(unet, (64, 64))
