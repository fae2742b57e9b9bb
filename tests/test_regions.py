"""Cross-attentions that another extension works out region by region or half by half.

Their token maps are compared with the attention of every pixel to what it was shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import k_diffusion.sampling as k_diffusion
import pytest
import torch
from stand_ins import hooks_on, tiny_unet, words
from test_run import ldm_run, ldm_sizes
from torch import Tensor, nn

from asyndm_lib.masks.choice import concentration
from asyndm_lib.models.family import Family, Recorded
from asyndm_lib.models.parts import context
from asyndm_lib.models.parts.mixed_token_maps import shares_of
from asyndm_lib.models.unet import FAMILY, PLAIN, cross_attentions
from asyndm_lib.prompt.candidates import named_or_candidates
from asyndm_lib.run.run import Run
from asyndm_lib.samplers.table import SAMPLERS

CHUNK = 6
HEIGHT, WIDTH = 8, 12  # of the maps: half of the latent's
FIRST, SECOND = 2, CHUNK + 3
"""Where a target stands in the first chunk of a prompt, and one in the second."""
FAMILIES = pytest.mark.parametrize("family", [FAMILY, PLAIN], ids=["fast", "plain"])

Mix = Callable[[nn.Module, Tensor, Tensor], Tensor]


def attended(attention: nn.Module, x: Tensor, context: Tensor) -> Tensor:
    """What is usual in an attention, except for the projection at its end."""
    q, k, v = (
        projected.unflatten(-1, (attention.heads, -1)).transpose(1, 2)
        for projected in (attention.to_q(x), attention.to_k(context), attention.to_v(context))
    )
    return nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def by_chunks(attention: nn.Module, x: Tensor, context: Tensor) -> list[Tensor]:
    """An output for each chunk of the prompt."""
    chunks = context.clone().split(CHUNK, dim=1)
    return [attention.to_out(attended(attention, x, chunk)) for chunk in chunks]


def right(x: Tensor) -> Tensor:
    """Which pixels of a row are in the right half of the picture."""
    width = round((x.shape[1] * WIDTH / HEIGHT) ** 0.5)
    return (torch.arange(x.shape[1]) % width >= width // 2)[:, None]


def columns(attention: nn.Module, x: Tensor, context: Tensor) -> Tensor:
    """The left half by the first chunk, the right half by the second."""
    first, second = by_chunks(attention, x, context)
    return torch.where(right(x), second, first)


def projected_at_last(attention: nn.Module, x: Tensor, context: Tensor) -> Tensor:
    """The same with all keys asked for first."""
    first, second = map(attention.to_out, [attended(attention, x, chunk) for chunk in context.split(CHUNK, dim=1)])
    return torch.where(right(x), second, first)


def columns_by_halves(attention: nn.Module, x: Tensor, context: Tensor) -> Tensor:
    return torch.cat([columns(attention, *half) for half in zip(x.chunk(2), context.chunk(2), strict=True)])


def with_base(attention: nn.Module, x: Tensor, context: Tensor) -> Tensor:
    """The first chunk everywhere, on the right with a share of a quarter only."""
    base, own = by_chunks(attention, x, context)
    return torch.where(right(x), base * 0.25 + own * 0.75, base)


def more_words(attention: nn.Module, x: Tensor, context: Tensor) -> Tensor:
    """The halves of the batch, the second one first, with words of somebody else's behind."""
    halves = reversed(list(zip(x.chunk(2), context.chunk(2), strict=True)))
    outputs = [attention.to_out(attended(attention, x, with_more(c))) for x, c in halves]
    return torch.cat(outputs[::-1])


def with_more(context: Tensor) -> Tensor:
    return torch.cat([context, torch.full_like(context[:, :2], 0.5)], dim=1)


def mix_with(unet: nn.Module, mix: Mix) -> None:
    """Give every text cross-attention a ``forward`` of its own, as the extensions do."""
    for attention, _ in cross_attentions(unet):
        attention.forward = lambda x, context=None, mask=None, a=attention: mix(a, x, context)


@contextmanager
def mixed_in_the_class(unet: nn.Module, mix: Mix) -> Iterator[None]:
    """The same for the class of the attentions."""
    kind = type(next(cross_attentions(unet))[0])
    own, ours = kind.forward, {attention for attention, _ in cross_attentions(unet)}

    def forward(self: nn.Module, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        return mix(self, x, context) if self in ours else own(self, x, context, mask)

    kind.forward = forward
    try:
        yield
    finally:
        kind.forward = own


def given(rows: int = 4, chunks: int = 2) -> dict:
    random = torch.Generator().manual_seed(3)
    return {
        "x": torch.randn(rows, 4, 2 * HEIGHT, 2 * WIDTH, generator=random),
        "timesteps": torch.full((rows,), 500.0),
        "context": 3 * torch.randn(rows, chunks * CHUNK, 8, generator=random),
    }


def weights(row: object, context: int) -> Tensor:
    assert context == 2 * CHUNK
    targets = torch.zeros(context, 2)
    targets[FIRST, 0] = targets[SECOND, 1] = 1
    return targets


def read(unet: nn.Module, family: Family = FAMILY, call: dict | None = None) -> Recorded:
    """What is read of the first two rows of four; the model computes what it does without."""
    maps, call = family.token_maps(unet, (2 * HEIGHT, 2 * WIDTH)), call or given()
    own, hooks = unet(**call), hooks_on(unet)
    maps.attach()
    with maps.record([(0, 0), (1, 0), None, None], weights):
        assert torch.equal(unet(**call), own)
    recorded = maps.take()
    assert maps.take().rows == []
    maps.detach()
    assert hooks_on(unet) == hooks
    return recorded


def probabilities(unet: nn.Module, keys: Callable[[Tensor], list[Tensor]]) -> list[list[Tensor]]:
    """The probabilities ``[pixels, tokens]`` of each of ``keys(context)``, for the first two rows.

    They are means over the heads and the layers that are read.
    """
    seen: list[tuple] = []
    for attention, factor in cross_attentions(unet):
        if factor == 2:
            attention.register_forward_pre_hook(
                lambda a, args, options: seen.append((a, args[0], options["context"])), with_kwargs=True
            )
    unet(**given())

    def of(attention: nn.Module, x: Tensor, key: Tensor) -> Tensor:
        projected = attention.to_q(x), attention.to_k(key)
        q, k = (t.unflatten(-1, (attention.heads, -1)).transpose(0, 1) for t in projected)
        return (q @ k.transpose(1, 2) * attention.scale).softmax(dim=-1).mean(dim=0)

    layers = [[[of(a, x[n], key[n]) for key in keys(context)] for n in range(2)] for a, x, context in seen]
    images = zip(*layers, strict=True)
    return [[torch.stack(of_layers).mean(dim=0) for of_layers in zip(*image, strict=True)] for image in images]


def chunks_of(context: Tensor) -> list[Tensor]:
    return list(context.split(CHUNK, dim=1))


ON_THE_RIGHT = (torch.arange(HEIGHT * WIDTH) % WIDTH >= WIDTH // 2).float()


@FAMILIES
@pytest.mark.parametrize(
    ("mix", "first_share", "second_share", "reach"),
    [
        (columns, 1 - ON_THE_RIGHT, ON_THE_RIGHT, [0.5, 0.5]),
        (projected_at_last, 1 - ON_THE_RIGHT, ON_THE_RIGHT, [0.5, 0.5]),
        (columns_by_halves, 1 - ON_THE_RIGHT, ON_THE_RIGHT, [0.5, 0.5]),
        (with_base, 1 - 0.75 * ON_THE_RIGHT, 0.75 * ON_THE_RIGHT, [1, 0.5]),
    ],
    ids=["columns", "projected at last", "columns by halves", "base"],
)
def test_a_target_of_any_region_has_its_own_map_there_and_none_elsewhere(mix, first_share, second_share, reach, family):
    unet = tiny_unet()
    mix_with(unet, mix)
    rows, maps, reached = read(unet, family)
    assert rows == [(0, 0), (1, 0)]
    for own, chunks in zip(maps, probabilities(unet, chunks_of), strict=True):
        first, second = chunks[0][:, FIRST] * first_share, chunks[1][:, SECOND - CHUNK] * second_share
        expected = torch.stack([first, second]).view(2, HEIGHT, WIDTH)
        assert expected.amax() > 2 * expected[expected > 0].mean(), "a flat map proves nothing"
        torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(reached, torch.tensor([reach] * 2).float())


@FAMILIES
def test_halves_are_read_by_their_own_rows_and_added_words_are_none_of_the_prompts(family):
    """Before, the second half's key, of the negative prompts, was read for the first one's rows."""
    unet = tiny_unet()
    mix_with(unet, more_words)
    rows, maps, reached = read(unet, family)
    assert rows == [(0, 0), (1, 0)]
    for own, [key] in zip(maps, probabilities(unet, lambda context: [with_more(context)]), strict=True):
        expected = key[:, [FIRST, SECOND]].t().view(2, HEIGHT, WIDTH)
        torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-6)
    assert (reached == 1).all()


@FAMILIES
def test_a_forward_that_only_does_what_is_usual_changes_no_map(family):
    usual = read(tiny_unet(), family)
    unet = tiny_unet()
    mix_with(unet, lambda attention, x, context: attention.to_out[0](attended(attention, x, context)))
    rows, maps, reached = read(unet, family)
    assert rows == usual.rows
    torch.testing.assert_close(maps, usual.maps, rtol=1e-4, atol=1e-6)
    assert (reached == 1).all()
    assert usual.reach is None


@FAMILIES
def test_a_pass_of_fewer_pictures_before_the_models_own_is_not_read(family):
    """So does sd-webui-fabric send its reference, where a batch has more pictures."""
    unet, reference = tiny_unet(), given()
    mix_with(unet, columns)
    usual, own = read(unet, family), unet.forward

    def forward(x: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        own(reference["x"][:1] + 1, timesteps[:1], reference["context"][:1])
        return own(x, timesteps, context)

    unet.forward = forward
    rows, maps, reached = read(unet, family)
    assert rows == usual.rows
    assert torch.equal(maps, usual.maps)
    assert torch.equal(reached, usual.reach)


def mark_prompts(unet: nn.Module, call: dict) -> None:
    """Sets a token in front of the prompts, which a ``forward`` takes away, as ControlNet does."""
    own = unet.forward
    unet.forward = lambda x, timesteps, context: own(x, timesteps, context[:, 1:])
    call["context"] = torch.cat([torch.full_like(call["context"][:, :1], 1024.0), call["context"]], dim=1)


@FAMILIES
@pytest.mark.parametrize("mix", [None, columns, more_words], ids=["no regions", "columns", "more words"])
def test_a_mark_in_front_of_the_prompts_moves_no_word(mix, family, monkeypatch):
    monkeypatch.setattr(context, "CHUNK", CHUNK)
    recorded = []
    for mark in (lambda unet, call: None, mark_prompts):
        unet, call = tiny_unet(), given()
        if mix is not None:
            mix_with(unet, mix)
        mark(unet, call)
        recorded.append(read(unet, family, call))
    assert recorded[0].rows == recorded[1].rows != []
    torch.testing.assert_close(recorded[1].maps, recorded[0].maps)


def test_equal_chunks_share_every_pixel_since_nothing_tells_them_apart():
    unet, call = tiny_unet(), given()
    call["context"][:, CHUNK:] = call["context"][:, :CHUNK]
    mix_with(unet, columns)
    _, maps, reached = read(unet, call=call)
    chunks = probabilities(unet, chunks_of)
    assert len(chunks) == 2
    assert (reached == 1).all()
    assert (maps > 0).all()


def other_words(attention: nn.Module, x: Tensor, context: Tensor) -> Tensor:
    """A key of words that stand in no prompt."""
    return attention.to_out(attended(attention, x, context[:, :CHUNK] * 0.5 + 1))


def joined_before_the_end(attention: nn.Module, x: Tensor, context: Tensor) -> Tensor:
    """The regions are put together before the projection that ends an attention."""
    first, second = (attended(attention, x, chunk) for chunk in context.split(CHUNK, dim=1))
    return attention.to_out(torch.where(right(x), second, first))


def joined_by_halves(attention: nn.Module, x: Tensor, context: Tensor) -> Tensor:
    """As many projections as one half has keys."""
    halves = zip(x.chunk(2), context.chunk(2), strict=True)
    return torch.cat([joined_before_the_end(attention, *half) for half in halves])


def with_something_else(attention: nn.Module, x: Tensor, context: Tensor) -> Tensor:
    first, second = by_chunks(attention, x, context)
    return torch.where(right(x), second, first) + x.roll(1, dims=2)


def changed_on_the_way(attention: nn.Module, x: Tensor, context: Tensor) -> Tensor:
    """Half by half, of something that is not the batch that came in."""
    halves = zip((x + 1).chunk(2), context.chunk(2), strict=True)
    return torch.cat([attention.to_out(attended(attention, *half)) for half in halves])


@FAMILIES
@pytest.mark.parametrize("mix", [joined_before_the_end, joined_by_halves, with_something_else, changed_on_the_way])
def test_what_cannot_be_told_is_not_read(mix, family):
    unet = tiny_unet()
    mix_with(unet, mix)
    assert read(unet, family).rows == []


@FAMILIES
def test_words_that_stand_in_no_prompt_are_no_targets(family):
    unet = tiny_unet()
    mix_with(unet, other_words)
    rows, maps, reached = read(unet, family)
    assert rows == [(0, 0), (1, 0)]
    assert not maps.any()
    assert not reached.any()


@FAMILIES
@pytest.mark.parametrize("mix", [columns, more_words, other_words])
def test_keys_of_a_part_of_the_prompts_are_not_read_where_the_class_asks_for_them(mix, family):
    unet = tiny_unet()
    with mixed_in_the_class(unet, mix):
        assert read(unet, family).rows == []


@FAMILIES
def test_words_behind_the_prompts_own_leave_its_maps_where_the_class_adds_them(family):
    unet = tiny_unet()

    def longer(attention: nn.Module, x: Tensor, context: Tensor) -> Tensor:
        return attention.to_out(attended(attention, x, with_more(context)))

    maps = family.token_maps(unet, (2 * HEIGHT, 2 * WIDTH))
    maps.attach()
    with mixed_in_the_class(unet, longer), maps.record([(0, 0), None, None, None], of_longer):
        unet(**given())
    [own] = maps.take().maps
    maps.detach()
    mix_with(unet, longer)
    [[key], _] = probabilities(unet, lambda context: [with_more(context)])
    torch.testing.assert_close(own, key[:, [FIRST, SECOND]].t().view(2, HEIGHT, WIDTH), rtol=1e-4, atol=1e-6)


def of_longer(row: object, context: int) -> Tensor:
    return nn.functional.pad(weights(row, 2 * CHUNK), (0, 0, 0, context - 2 * CHUNK))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_shares_are_told_also_of_outputs_much_alike(dtype):
    random = torch.Generator().manual_seed(4)
    common = torch.randn(50, 64, generator=random)
    outputs = [(common + 0.3 * torch.randn(50, 64, generator=random)).to(dtype) for _ in range(3)]
    shares = torch.rand(3, 50, generator=random).softmax(dim=0)
    shares[:, :20] = nn.functional.one_hot(torch.arange(20) % 3, 3).t()
    whole = sum(share[:, None] * output.float() for share, output in zip(shares, outputs, strict=True)).to(dtype)
    found = shares_of(outputs, whole)
    assert torch.equal(found[:, :20], shares[:, :20])
    torch.testing.assert_close(found, shares, rtol=0, atol=0.05 if dtype == torch.bfloat16 else 0.01)


def test_keys_of_one_output_share_it_alike():
    output = torch.randn(500, 8)
    torch.testing.assert_close(shares_of([output, output], output), torch.full((2, 500), 0.5))
    # Double precision's 1e-16 over the 1e-12 by which the equations of equal keys differ.
    torch.testing.assert_close(shares_of([output, output], output / 4), torch.full((2, 500), 0.125), rtol=0, atol=1e-3)
    assert shares_of([output, output.roll(1, 1)], torch.full_like(output, torch.nan)) is None
    assert torch.equal(shares_of([output * 0, output * 0], output * 0), torch.full((2, 500), 0.5))


def test_a_word_that_half_of_the_picture_is_shown_is_judged_by_that_half():
    map, flat = torch.rand(1, 1, 4, 4), torch.ones(1, 1, 4, 4)
    half, nothing = torch.tensor([[0.5]]), torch.zeros_like(map)
    torch.testing.assert_close(concentration(torch.cat([map, nothing], dim=-1), half), concentration(map))
    assert concentration(torch.cat([flat, nothing], dim=-1), half).abs().item() < 1e-6


# --- Whole runs -----------------------------------------------------------------------------------

PROMPT = "a cat and hats , a dog and bones"
"""The start token and five words make a chunk of six; the dog stands in the second one."""


@pytest.mark.parametrize("timing", ["fresh", "static"])
def test_where_no_targets_are_named_words_of_every_region_can_be_chosen(timing):
    sigmas, x = ldm_sizes(2, n=6)
    own, run = ldm_run([PROMPT, PROMPT], sigmas, x, targets="", mask_timing=timing)
    own.context[:, [2, 7]] = 4 * own.context[:, [2, 2]]  # both stand out alike
    mix_with(own.unet, columns)
    targets = named_or_candidates([()] * 2, run.targets.prompts, words)
    own.run = run = Run(run.host, run.settings, targets, x)
    with run:
        run.sample(SAMPLERS["sample_euler"], x)
    assert not run.problems
    for chosen in run.chosen:
        assert {"cat", "dog"} <= set(chosen)


def beside(mix: Mix, targets: str, **settings: object) -> tuple[Run, list[Tensor], Tensor, Tensor]:
    """A run beside ``mix``, the masks that it took, its latent, and the latent without it."""
    sigmas, x = ldm_sizes(2, n=6)
    own, run = ldm_run([PROMPT, PROMPT], sigmas, x, targets=targets, **settings)
    mix_with(own.unet, mix)
    masks: list[Tensor] = []
    own.run = run = Run(run.host, run.settings, run.targets, x, [lambda seen: masks.append(seen.mask)])
    with run:
        out = run.sample(SAMPLERS["sample_euler"], x)
    own.run = None
    plain = k_diffusion.sample_euler(lambda x, s: own.predict(x, s[0]), x, sigmas, disable=True)
    return run, [mask.related for mask in masks if mask is not None], out, plain


@pytest.mark.parametrize("timing", ["lagged", "fresh", "static"])
@pytest.mark.parametrize(("target", "half"), [("cat", slice(0, 6)), ("dog", slice(6, 12))])
def test_a_target_lags_in_its_own_region_only(target, half, timing):
    """Before, a target of the second region was the whole picture's."""
    run, masks, out, plain = beside(columns, target, mask_timing=timing)
    assert not run.problems
    assert len(masks) == 5
    for related in masks[timing == "lagged" :]:
        assert related[..., half].any()
        assert not related[..., half].all(), "it is the region's mean that a map is held against"
        outside = torch.ones_like(related)
        outside[..., half] = False
        assert not (related & outside).any()
    assert not torch.equal(out, plain)


@pytest.mark.parametrize("timing", ["lagged", "fresh", "static"])
def test_a_target_that_no_part_of_the_picture_is_shown_relates_nothing_and_is_named(timing):
    def first_only(attention: nn.Module, x: Tensor, context: Tensor) -> Tensor:
        return by_chunks(attention, x, context)[0]

    run, masks, *_ = beside(first_only, "cat, dog", mask_timing=timing)
    [problem] = run.problems
    assert '"dog" was not seen' in problem
    run, masks, *_ = beside(first_only, "dog", mask_timing=timing)
    assert not any(related.any() for related in masks[timing == "lagged" :])


@pytest.mark.parametrize("timing", ["lagged", "fresh", "static"])
def test_where_nothing_can_be_told_the_picture_is_the_hosts_own_to_the_bit(timing):
    run, masks, out, plain = beside(joined_before_the_end, "cat", mask_timing=timing)
    assert run.blind
    assert not any(related.any() for related in masks)
    assert torch.equal(out, plain)


@pytest.mark.parametrize("mix", [columns, with_base, more_words])
def test_concavity_0_is_the_picture_beside_them_to_the_bit(mix):
    _, _, out, plain = beside(mix, "cat, dog", concavity=0.0)
    assert torch.equal(out, plain)
