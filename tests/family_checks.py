"""What holds for every transformer whose tokens have levels of their own, checked on small random
ones.

It runs with the classes of Forge and Forge Neo in their own Python, which has no pytest: see
``test_transformers.py``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from joint_checks import at_levels, cells_of, deviation, failing_at_each, hooks_on, pixels, random_index
from torch import Tensor, nn

from asyndm_lib.errors import Unsupported
from asyndm_lib.hosts.forge_family.models import check_model
from asyndm_lib.models import anima, chroma, ernie_image, flux, krea, nextdit, of, qwen_image, unet, wan
from asyndm_lib.models.parts.function_maps import function_globals

TIMES = torch.tensor([0.9, 0.8125, 0.4375, 0.03])
ROWS, TOKENS = 3, 7


@dataclass(frozen=True)
class Case:
    """A family, and a small model of it.

    ``make()`` gives the model. ``inputs(rows, dtype)``: what else it is given. ``before``, of the
    prompt's tokens, and ``behind``, of the cells: how many tokens come before the picture's and
    behind it. ``blocks``: those that token maps can be read of.
    """

    name: str
    file: Any
    make: Callable[[], nn.Module]
    context: tuple[int, ...]
    inputs: Callable[[int, torch.dtype], dict] = lambda rows, dtype: {}
    channels: int = 16
    scale: float = 1.0
    before: Callable[[int], int] = lambda words: words
    behind: Callable[[int], int] = lambda cells: 0
    prompt_last: bool = False
    crossed: bool = False
    temporal: bool = False
    blocks: Callable[[Any], list] = field(default=lambda model: [*model.double_blocks, *model.single_blocks])
    odd: bool = True

    def model(self, dtype: torch.dtype) -> nn.Module:
        return random_weights(self.make(), dtype)

    @property
    def times(self) -> Tensor:
        return TIMES * self.scale


def random_weights(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """``model`` with weights that let every input count."""
    random = torch.Generator().manual_seed(0)
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if not value.is_floating_point() or "dim_" in name:
            continue
        scale = 1.5 * value[0].numel() ** -0.5 if value.dim() > 1 else 0.3
        value.data = (scale * torch.randn(value.shape, generator=random)).to(value)
        if value.dim() == 1 and "norm" in name:
            value.data = (2 if "q" in name or "k" in name else 1) + value.data
    return model.to(dtype).eval().requires_grad_(False)


@dataclass(frozen=True)
class Given:
    """A call of a model: rows of latents, timesteps, prompts and what else it is given."""

    x: Tensor
    t: Tensor
    context: Tensor
    others: dict

    @classmethod
    def random(cls, case: Case, size: tuple[int, int], dtype: torch.dtype = torch.float32, rows: int = ROWS) -> Given:
        random = torch.Generator().manual_seed(1)
        shape = (rows, case.channels, *((1,) if case.temporal else ()), *size)
        x, context = (torch.randn(s, generator=random).to(dtype) for s in (shape, (rows, *case.context)))
        return cls(x, case.times[:1].expand(rows), context, case.inputs(rows, dtype))

    def rows(self, at: slice) -> Given:
        others = {
            name: value[at] if isinstance(value, Tensor) else [own[at] for own in value]
            for name, value in self.others.items()
        }
        return Given(self.x[at], self.t[at], self.context[at], others)

    def of(self, model: nn.Module) -> Tensor:
        with torch.no_grad():
            return model(self.x.clone(), self.t, context=self.context.clone(), transformer_options={}, **self.others)


def side_of(case: Case, model: nn.Module) -> int:
    return case.file.FAMILY.side(model)


@contextmanager
def attending(case: Case, model: nn.Module, attend: Callable[..., Tensor]) -> Iterator[None]:
    """Inside the ``with`` attentions are worked out by ``attend(own, q, k, v, heads, apart)``."""
    with ExitStack() as stack:
        seen: set[int] = set()
        for part in model.modules():
            try:
                names = function_globals(part)
            except Exception:
                continue
            if id(names) in seen:
                continue
            seen.add(id(names))
            own = names["attention_function"]

            def function(q, k, v, heads, *args, own=own, skip_reshape=False, **kwargs):
                plain = partial(own, q, k, v, heads, *args, skip_reshape=skip_reshape, **kwargs)
                return attend(plain, q, k, v, heads, skip_reshape)

            names["attention_function"] = function
            stack.callback(names.__setitem__, "attention_function", own)
        yield


def only_itself(plain: Callable, q: Tensor, k: Tensor, v: Tensor, heads: int, apart: bool) -> Tensor:
    """Every token attends to nothing but itself; to a prompt that is apart from it, to all alike.
    """
    tokens = q.shape[2] if apart else q.shape[1]
    if apart:
        v = v.transpose(1, 2).flatten(2)
    return v if v.shape[1] == tokens else v.mean(1, keepdim=True).expand(-1, tokens, -1)


def each_token_is_the_plain_run_at_its_level(case: Case, size: tuple[int, int], dtype: torch.dtype) -> None:
    model = case.model(dtype)
    side, family, plain_family = side_of(case, model), case.file.FAMILY, case.file.FAMILY.plain
    given, index = Given.random(case, size, dtype), random_index(size, side)
    with attending(case, model, only_itself):
        plain = torch.stack([replace(given, t=t.expand(ROWS)).of(model) for t in case.times])
        level = pixels(index, size, side)
        level = (level.unsqueeze(2) if case.temporal else level).expand_as(given.x)
        expected = plain.gather(0, level[None])[0]
        assert (expected - plain[0]).abs().max() > 0.05
        with at_levels(model, index, plain_family, case.times):
            found = given.of(model)
            largest = (found - expected).abs().max()
            assert largest <= (0 if dtype == torch.bfloat16 else 2e-6 * expected.abs().max()), f"plain: {largest}"
        with at_levels(model, index, family, case.times):
            fast = given.of(model)
    # A table of all levels may round otherwise than a call of its own.
    exact = dtype == torch.float32
    close = {"rtol": 2e-5, "atol": 1e-5 * float(expected.abs().max())} if exact else {"rtol": 0.1, "atol": 0.1}
    torch.testing.assert_close(fast, expected, **close)
    assert deviation(fast, expected) < 0.02 * deviation(plain[1], plain[0]), "hardly an element rounds otherwise"


def a_constant_map_changes_no_bit(case: Case, size: tuple[int, int], dtype: torch.dtype) -> None:
    model = case.model(dtype)
    given, side = Given.random(case, size, dtype), side_of(case, model)
    own, none = given.of(model), torch.zeros_like(random_index(size, side))
    one_row = random_index(size, side)
    one_row[1] = 0
    for family in (case.file.FAMILY.plain, case.file.FAMILY):
        for timesteps in (case.times, case.times[:1]):
            with at_levels(model, none, family, timesteps):
                assert torch.equal(given.of(model), own)
        with at_levels(model, one_row, family, case.times):
            mixed = given.of(model)
        assert torch.equal(mixed[1], own[1])
        assert not torch.equal(mixed[0], own[0])


def a_row_at_one_level_is_the_models_own_call_at_it(case: Case, size: tuple[int, int]) -> None:
    model = case.model(torch.float32)
    given, index = Given.random(case, size), random_index(size, side_of(case, model))
    index[1], index[2] = 2, 0
    for rows in (slice(1, 3), slice(0, 3)):  # without a row at several levels, and with one
        here = given.rows(rows)
        expected = replace(here, t=torch.cat([here.t[:-2], case.times[[2, 0]]])).of(model)
        for family in (case.file.FAMILY.plain, case.file.FAMILY):
            with at_levels(model, index[rows], family, case.times):
                assert torch.equal(here.of(model)[-2:], expected[-2:])


def a_second_call_within_one_is_as_the_first(case: Case, size: tuple[int, int]) -> None:
    """Other extensions make one for a guidance of their own."""
    model = case.model(torch.float32)
    given, index = Given.random(case, size), random_index(size, side_of(case, model))
    for family in (case.file.FAMILY.plain, case.file.FAMILY):
        with at_levels(model, index, family, case.times):
            first = given.of(model)
            assert torch.equal(given.of(model), first)


def a_row_is_the_same_alone(case: Case, size: tuple[int, int]) -> None:
    """A single row with a map of its own, and rows of different maps."""
    model = case.model(torch.float32)
    given, index = Given.random(case, size), random_index(size, side_of(case, model))
    for family in (case.file.FAMILY.plain, case.file.FAMILY):
        with at_levels(model, index, family, case.times):
            together = given.of(model)
        for row in range(ROWS):
            one = slice(row, row + 1)
            with at_levels(model, index[one], family, case.times):
                alone = given.rows(one).of(model)
            torch.testing.assert_close(alone, together[one], rtol=1e-3, atol=1e-4)


def the_texts_tokens_keep_the_hosts_level(case: Case, size: tuple[int, int], dtype: torch.dtype) -> None:
    """Their keys are the same, whatever levels the picture has."""
    model = case.model(dtype)
    side = side_of(case, model)
    given, (h, w) = Given.random(case, size, dtype), cells_of(size, side)
    runs: list[list[Tensor]] = []

    def attend(plain: Callable, q: Tensor, k: Tensor, v: Tensor, heads: int, apart: bool) -> Tensor:
        keys = k.transpose(1, 2).flatten(2) if apart else k
        at = keys.shape[1] - h * w - case.behind(h * w)
        if case.crossed:
            runs[-1].extend([keys] if keys.shape[1] == case.context[-2] else [])
        elif at > 0 or case.prompt_last:
            runs[-1].append(keys[:, h * w :] if case.prompt_last else keys[:, :at])
        return only_itself(plain, q, k, v, heads, apart)

    with attending(case, model, attend):
        for family in (None, case.file.FAMILY.plain, case.file.FAMILY):
            runs.append([])
            with ExitStack() as stack:
                if family is not None:
                    stack.enter_context(at_levels(model, random_index(size, side), family, case.times))
                given.of(model)
    assert len(runs[0]) > 1
    own, plain, fast = runs
    assert all(torch.equal(a, b) for a, b in zip(own, plain, strict=True))
    for a, b in zip(own, fast, strict=True):
        assert deviation(a, b) <= 1e-5 * a.float().square().mean().sqrt() * (1000 if dtype == torch.bfloat16 else 1)


def token_maps_are_the_slow_softmax(case: Case, size: tuple[int, int]) -> None:
    """Over all tokens of the attention, as it gets them."""
    model = case.model(torch.float32)
    given, (h, w) = Given.random(case, size), cells_of(size, side_of(case, model))
    blocks, words = case.blocks(model), case.context[-2]
    read = sorted({0, len(blocks) - 1})
    calls: list[tuple[Tensor, Tensor]] = []

    def attend(plain: Callable, q: Tensor, k: Tensor, v: Tensor, heads: int, apart: bool) -> Tensor:
        calls.append(tuple(x if apart else x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k)))
        return plain()

    with attending(case, model, attend):
        own = given.of(model)
    calls = [(q, k) for q, k in calls if len(q) == ROWS and q.shape[2] >= h * w and k.shape[2] >= words]
    if case.crossed:
        calls = [(q, k) for q, k in calls if k.shape[2] == words]
    else:
        calls = [(q, k) for q, k in calls if k.shape[2] == case.before(words) + h * w + case.behind(h * w)]
    assert len(calls) == len(blocks)
    weights = {row: torch.rand(words, 2, generator=torch.Generator().manual_seed(row)) for row in (0, 2)}
    expected = []
    for row in (0, 2):
        sums = []
        for number in read:
            q, k = (x[row] for x in calls[number])
            first = 0 if case.crossed or case.prompt_last else case.before(words)
            column = k.shape[1] - words if case.prompt_last else 0
            for head in range(len(q)):
                attention = (q[head, first : first + h * w] @ k[head].T * q.shape[-1] ** -0.5).softmax(dim=-1)
                sums.append(attention[:, column : column + words] @ weights[row])
        expected.append((sum(sums) / len(sums)).T)
    assert torch.stack(expected).std(dim=-1).min() > 1e-4
    for family in (case.file.FAMILY.plain, case.file.FAMILY):
        maps = replace(family, blocks=[(number + 0.5) / len(blocks) for number in read]).token_maps(model, size)
        maps.attach()
        with maps.record([(0, 0), None, (2, 0)], lambda row, context: weights[row[0]]):
            assert torch.equal(given.of(model), own)
        found, means, _ = maps.take()
        assert found == [(0, 0), (2, 0)]
        torch.testing.assert_close(means.flatten(2), torch.stack(expected), rtol=1e-4, atol=1e-6)
        assert maps.take().rows == []
        maps.detach()
    assert hooks_on(model) == 0


def no_hook_stays(case: Case, size: tuple[int, int]) -> None:
    """After success, and an exception or an interrupt at any of the hooked modules."""
    model = case.model(torch.float32)
    given, index = Given.random(case, size), random_index(size, side_of(case, model))
    own, family = given.of(model), case.file.FAMILY

    def functions() -> list[Any]:
        found = []
        for part in model.modules():
            names = vars(sys.modules[type(part).__module__])
            found.append(names.get("attention_function"))
        return found

    before = functions()

    @contextmanager
    def observed() -> Iterator[None]:
        maps = family.token_maps(model, size)
        maps.attach()
        try:
            record = maps.record([(0, 0), None, None], lambda row, context: torch.ones(context, 1))
            with at_levels(model, index, family, case.times), record:
                yield
        finally:
            maps.detach()

    def call() -> Tensor:
        with observed():
            return given.of(model)

    with observed():
        hooked = [m for m in model.modules() if m._forward_hooks or m._forward_pre_hooks or "forward" in vars(m)]
        mixed = given.of(model)
    assert hooks_on(model) == 0
    assert not torch.equal(mixed, own)
    assert len(hooked) > 4
    for _ in failing_at_each(hooked, call):
        assert hooks_on(model) == 0
        assert functions() == before
    assert torch.equal(given.of(model), own)
    assert torch.equal(call(), mixed)


def all_hold(case: Case, sizes: list[tuple[int, int]]) -> None:
    for size in sizes if case.odd else sizes[:1]:
        for dtype in (torch.float32, torch.bfloat16):
            each_token_is_the_plain_run_at_its_level(case, size, dtype)
            a_constant_map_changes_no_bit(case, size, dtype)
            the_texts_tokens_keep_the_hosts_level(case, size, dtype)
        a_row_at_one_level_is_the_models_own_call_at_it(case, size)
        a_row_is_the_same_alone(case, size)
        a_second_call_within_one_is_as_the_first(case, size)
        token_maps_are_the_slow_softmax(case, size)
    assert of(case.model(torch.float32)) is case.file.FAMILY
    no_hook_stays(case, sizes[0])


SIZES = [(8, 12), (7, 9)]
WIDTH = 16


def pooled(rows: int, dtype: torch.dtype, guidance: bool = False) -> dict:
    random = torch.Generator().manual_seed(3)
    given = {"y": torch.randn(rows, 12, generator=random).to(dtype)}
    return {**given, "guidance": torch.tensor([3.5, 2.0, 5.0])[:rows].to(dtype)} if guidance else given


def forges() -> list[Case]:
    """Forge's classes."""
    from backend.nn.chroma import IntegratedChromaTransformer2DModel as Chroma
    from backend.nn.flux import IntegratedFluxTransformer2DModel as Flux

    sizes = {"in_channels": 16, "vec_in_dim": 12, "context_in_dim": WIDTH, "hidden_size": 64, "num_heads": 2}
    sizes |= {"mlp_ratio": 2.0, "depth": 2, "depth_single_blocks": 2, "axes_dim": [8, 12, 12], "theta": 10000}
    distilled = {"guidance_out_dim": 64, "guidance_hidden_dim": 48, "guidance_n_layers": 2, "qkv_bias": True}
    context = TOKENS, WIDTH
    return [
        Case("Flux dev", flux, lambda: Flux(**sizes, qkv_bias=True, guidance_embed=True), context,
             partial(pooled, guidance=True)),
        Case("Flux schnell", flux, lambda: Flux(**sizes, qkv_bias=True, guidance_embed=False), context, pooled),
        Case("Chroma", chroma, lambda: Chroma(**sizes, **distilled), context),
    ]


def neos() -> list[Case]:
    """Forge Neo's classes."""
    from backend.nn.chroma import IntegratedChromaTransformer2DModel as Chroma
    from backend.nn.flux import IntegratedFluxTransformer2DModel as Flux

    sizes = {"in_channels": 16, "out_channels": 16, "context_in_dim": WIDTH, "hidden_size": 64, "num_heads": 2}
    sizes |= {"mlp_ratio": 2.0, "depth": 2, "depth_single_blocks": 2, "axes_dim": [8, 12, 12], "theta": 10000}
    sizes |= {"patch_size": 2, "qkv_bias": True}
    distilled = {"in_channels": 64, "out_channels": 64, "in_dim": 64, "out_dim": 64, "hidden_dim": 48}
    distilled = {**distilled, "n_layers": 2, "vec_in_dim": None, "txt_ids_dims": []}
    klein = {"patch_size": 1, "global_modulation": True, "mlp_silu_act": True, "ops_bias": False, "vec_in_dim": None}
    klein |= {"in_channels": 128, "out_channels": 128, "guidance_embed": False, "txt_ids_dims": [3]}
    klein |= {"axes_dim": [8, 8, 8, 8], "qkv_bias": False, "default_ref_method": "index", "ref_index_scale": 10.0}
    context = TOKENS, WIDTH
    return [
        Case("Flux dev", flux, lambda: Flux(**sizes, vec_in_dim=12, guidance_embed=True), context,
             partial(pooled, guidance=True)),
        Case("Flux schnell", flux, lambda: Flux(**sizes, vec_in_dim=12, guidance_embed=False), context, pooled),
        Case("Klein", flux, lambda: Flux(**{**sizes, **klein}), context, channels=128),
        Case("Chroma", chroma, lambda: Chroma(**{**sizes, **distilled}), context),
        *nextdits(),
        *others(),
    ]


def nextdits() -> list[Case]:
    from backend.nn.lumina import NextDiT

    sizes = {"patch_size": 2, "in_channels": 16, "cap_feat_dim": WIDTH, "n_layers": 3, "qk_norm": True}
    sizes |= {"axes_dims": [8, 12, 12], "axes_lens": [1536, 512, 512]}
    lumina = sizes | {"dim": 128, "n_heads": 4, "n_kv_heads": 2, "rope_theta": 10000.0, "ffn_dim_multiplier": 2.0}
    image = sizes | {"dim": 256, "n_heads": 8, "n_kv_heads": 8, "rope_theta": 256.0, "ffn_dim_multiplier": 8 / 3}
    image |= {"z_image_modulation": True, "time_scale": 1000.0, "pad_tokens_multiple": 32}
    case = partial(Case, file=nextdit, context=(TOKENS, WIDTH), blocks=lambda model: model.layers)
    return [
        case("Lumina 2", make=lambda: NextDiT(**lumina)),
        case("Z-Image", make=lambda: NextDiT(**image), before=lambda words: words + -words % 32,
             behind=lambda cells: -cells % 32),
    ]


def referenced(case: Case, *shape: int) -> Case:
    """With a reference picture of 4×6 tokens, or of 2×3."""

    def inputs(rows: int, dtype: torch.dtype) -> dict:
        random = torch.Generator().manual_seed(5)
        reference = torch.randn(rows, case.channels, *shape, 4, 6, generator=random).to(dtype)
        return {**case.inputs(rows, dtype), "ref_latents": [reference]}

    behind = 6 if case.channels == 16 else 24
    return replace(case, name=f"{case.name} with a reference", inputs=inputs, behind=lambda cells: behind)


def others() -> list[Case]:
    from backend.nn.anima import Anima
    from backend.nn.ernie import ErnieImageModel
    from backend.nn.krea import SingleStreamDiT
    from backend.nn.qwen import QwenImageTransformer2DModel
    from backend.nn.wan import WanModel

    frames = {"dim": 128, "num_heads": 2, "ffn_dim": 96, "num_layers": 3, "text_dim": WIDTH, "in_dim": 16}
    cosmos = {"in_channels": 16, "out_channels": 16, "patch_spatial": 2, "patch_temporal": 1, "model_channels": 96}
    cosmos |= {"crossattn_emb_channels": WIDTH, "adaln_lora_dim": 16, "num_blocks": 3, "num_heads": 2}
    qwen = {"in_channels": 64, "num_layers": 3, "attention_head_dim": 32, "num_attention_heads": 2}
    qwen |= {"joint_attention_dim": WIDTH, "axes_dims_rope": [8, 12, 12]}
    ernie = {"hidden_size": 64, "num_attention_heads": 2, "num_layers": 3, "ffn_hidden_size": 96}
    ernie |= {"text_in_dim": WIDTH, "rope_axes_dim": [8, 12, 12]}
    two = {"features": 256, "txtdim": 64, "heads": 2, "kvheads": 1, "layers": 3, "patch": 2, "channels": 16}
    two |= {"txtlayers": 3, "txtheads": 2, "txtkvheads": 2}
    crossed = {"temporal": True, "crossed": True, "blocks": lambda model: model.blocks}
    crossed |= {"before": lambda words: 0}
    return [
        Case("Wan", wan, lambda: WanModel(**frames), (TOKENS, WIDTH), scale=1000.0, **crossed),
        Case("Anima", anima, lambda: Anima(**cosmos), (TOKENS, WIDTH), **crossed),
        Case("Qwen-Image", qwen_image, lambda: QwenImageTransformer2DModel(**qwen), (TOKENS, WIDTH), temporal=True,
             blocks=lambda model: model.transformer_blocks),
        Case("Ernie-Image", ernie_image, lambda: ErnieImageModel(**ernie), (TOKENS, WIDTH), channels=128, scale=1000.0,
             before=lambda words: 0, behind=lambda cells: TOKENS, prompt_last=True, blocks=lambda model: model.layers),
        Case("Krea 2", krea, lambda: SingleStreamDiT(**two), (1, TOKENS, 3 * 64), temporal=True,
             blocks=lambda model: model.blocks),
    ]


def pid_is_met_with_a_message() -> None:
    """Forge Neo's model that works on pixels and latents at once is none that is known."""
    from backend.nn.pixeldit.pid import PidNet

    with torch.device("meta"):
        model = PidNet()
    known = [case.file.FAMILY for case in neos()]
    held = SimpleNamespace(forge_objects=SimpleNamespace(unet=SimpleNamespace(model=SimpleNamespace())))
    held.forge_objects.unet.model.diffusion_model = model
    said = ""
    try:
        check_model(held, [unet.FAMILY, *known])
    except Unsupported as error:
        said = str(error)
    assert "models of this kind (here PidNet) are not supported" in said


if __name__ == "__main__":
    import os

    host, webui, *wanted = sys.argv[1:]
    sys.argv = [sys.argv[0], "--cpu" if host == "neo" else "--always-cpu"]
    os.chdir(webui)
    sys.path[:0] = [webui, f"{webui}/modules_forge/packages", f"{webui}/packages_3rdparty"]
    torch.set_num_threads(1)
    cases = {"forge": forges, "neo": neos}[host]()
    shapes = {"Flux dev": (), "Klein": (), "Qwen-Image": (1,), "Krea 2": (1,)} if host == "neo" else {}
    cases += [referenced(case, *shapes[case.name]) for case in cases if case.name in shapes]
    if host == "neo":
        pid_is_met_with_a_message()
    for case in cases:
        if not wanted or case.name in wanted:
            all_hold(case, SIZES)
            print(case.name, "holds", flush=True)
    print("all hold")
