"""What holds for every class of Stable Diffusion 3's transformer, checked on small random ones.

It runs with a WebUI's own class in that WebUI's Python too, which may have no pytest: see
``test_sd3.py``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from torch import Tensor, nn

from asyndm_lib.clock.cells import Cells
from asyndm_lib.models import of
from asyndm_lib.models.family import Family
from asyndm_lib.models.sd3 import FAMILY, PLAIN

TIMESTEPS = torch.tensor([900.0, 812.5, 437.25, 30.0])
CHANNELS, CONTEXT, POOLED, TOKENS = 16, 8, 12, 7


@dataclass(frozen=True)
class Given:
    """A call of a model: rows of latents, timesteps, prompts and pooled prompts."""

    x: Tensor
    t: Tensor
    context: Tensor
    y: Tensor

    @classmethod
    def random(cls, size: tuple[int, int], dtype: torch.dtype = torch.float32, rows: int = 3) -> Given:
        random = torch.Generator().manual_seed(1)
        shapes = (rows, CHANNELS, *size), (rows, TOKENS, CONTEXT), (rows, POOLED)
        x, context, y = (torch.randn(shape, generator=random).to(dtype) for shape in shapes)
        return cls(x, TIMESTEPS[:1].expand(rows), context, y)

    def of(self, model: nn.Module) -> Tensor:
        with torch.no_grad():
            return model(self.x, self.t, context=self.context, y=self.y)


def random_weights(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """``model`` with weights that let every input count."""
    random = torch.Generator().manual_seed(0)
    for value in [*model.parameters(), *model.buffers()]:
        scale = value[0].numel() ** -0.5 if value.dim() > 1 else 0.3
        value.data = (scale * torch.randn(value.shape, generator=random)).to(value)
    for name, value in model.named_parameters():
        if "ln_" in name:  # norms of queries and keys, large enough for words and places to matter
            value.data = 2 + value.data
    return model.to(dtype).eval().requires_grad_(False)


def cells_of(size: tuple[int, int], side: int) -> tuple[int, int]:
    return -(-size[0] // side), -(-size[1] // side)


def random_index(size: tuple[int, int], side: int = 2, rows: int = 3, levels: int = len(TIMESTEPS)) -> Tensor:
    random = torch.Generator().manual_seed(2)
    return torch.randint(levels, (rows, 1, *cells_of(size, side)), generator=random)


@contextmanager
def at_levels(
    model: nn.Module, index: Tensor, family: Family = FAMILY, timesteps: Tensor = TIMESTEPS
) -> Iterator[None]:
    levels = family.timesteps(model)
    levels.attach()
    try:
        with levels.use(timesteps, index):
            yield
    finally:
        levels.detach()


@contextmanager
def seeing_only_itself() -> Iterator[None]:
    """Inside the ``with`` every token attends to nothing but itself."""
    functions = torch.nn.functional
    before = functions.scaled_dot_product_attention
    functions.scaled_dot_product_attention = lambda q, k, v, *args, **kwargs: v
    try:
        yield
    finally:
        functions.scaled_dot_product_attention = before


def hooks_on(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) + ("forward" in vars(m)) for m in model.modules())


def pixels(map: Tensor, size: tuple[int, int], side: int = 2) -> Tensor:
    """A map of cells at every latent pixel."""
    return Cells(len(map), *size, side, map.device).pixels(map)


def each_token_is_the_plain_run_at_its_level(model: nn.Module, size: tuple[int, int], dtype: torch.dtype) -> None:
    given, index = Given.random(size, dtype), random_index(size)
    with seeing_only_itself():
        plain = torch.stack([replace(given, t=t.expand(3)).of(model) for t in TIMESTEPS])
        level = pixels(index, size).expand_as(given.x)
        expected = plain.gather(0, level[None])[0]
        assert (expected - plain[0]).abs().max() > 0.05
        with at_levels(model, index, PLAIN):
            assert torch.equal(given.of(model), expected), "the plain form"
        with at_levels(model, index, FAMILY):
            fast = given.of(model)
    # A table of all levels may round otherwise than a call of its own.
    close = {"rtol": 2e-5, "atol": 2e-5} if dtype == torch.float32 else {"rtol": 0.05, "atol": 0.05}
    torch.testing.assert_close(fast, expected, **close)
    assert deviation(fast, expected) < 0.02 * deviation(plain[1], plain[0]), "hardly an element rounds otherwise"


def deviation(a: Tensor, b: Tensor) -> Tensor:
    return (a.float() - b.float()).square().mean().sqrt()


def a_constant_map_changes_no_bit(model: nn.Module, size: tuple[int, int], dtype: torch.dtype) -> None:
    given = Given.random(size, dtype)
    own, none = given.of(model), torch.zeros_like(random_index(size))
    one_row = random_index(size)
    one_row[1] = 0
    for family in (PLAIN, FAMILY):
        with at_levels(model, none, family):
            assert torch.equal(given.of(model), own)
        with at_levels(model, none, family, TIMESTEPS[:1]):
            assert torch.equal(given.of(model), own)
        with at_levels(model, one_row, family):
            mixed = given.of(model)
        assert torch.equal(mixed[1], own[1])
        assert not torch.equal(mixed[0], own[0])


def a_row_at_one_level_is_the_models_own_call_at_it(model: nn.Module, size: tuple[int, int]) -> None:
    given, index = Given.random(size), random_index(size)
    index[1], index[2] = 2, 0
    for rows in (slice(1, 3), slice(0, 3)):  # without a row at several levels, and with one
        here = Given(given.x[rows], given.t[rows], given.context[rows], given.y[rows])
        expected = replace(here, t=torch.cat([here.t[:-2], TIMESTEPS[[2, 0]]])).of(model)
        for family in (PLAIN, FAMILY):
            with at_levels(model, index[rows], family):
                assert torch.equal(here.of(model)[-2:], expected[-2:])


def the_texts_tokens_keep_the_hosts_level(model: nn.Module, size: tuple[int, int], dtype: torch.dtype) -> None:
    given, seen = Given.random(size, dtype), []
    hooks = [block.register_forward_hook(lambda m, a, out: seen.append(out[0])) for block in model.joint_blocks]
    with seeing_only_itself():
        for map in (None, random_index(size)):
            for family in (PLAIN, FAMILY):
                if map is None:
                    given.of(model)
                else:
                    with at_levels(model, map, family):
                        given.of(model)
    for hook in hooks:
        hook.remove()
    depth = len(hooks)
    runs = [seen[at : at + depth - 1] for at in range(0, len(seen), depth)]  # the last block leaves no text
    assert len(runs) == 4
    assert all(torch.equal(a, b) for run in runs[1:] for a, b in zip(runs[0], run, strict=True))


def both_forms_give_the_same(model: nn.Module, size: tuple[int, int]) -> None:
    given, index = Given.random(size), random_index(size)
    outs = []
    for family in (PLAIN, FAMILY):
        with at_levels(model, index, family):
            outs.append(given.of(model))
    torch.testing.assert_close(*outs, rtol=1e-4, atol=1e-5)
    assert (outs[0] - given.of(model)).abs().max() > 0.05


def token_maps_are_the_slow_softmax(model: nn.Module, size: tuple[int, int]) -> None:
    """Over all tokens of the joint attention, as it gets them."""
    given, registers = Given.random(size), getattr(model, "register_length", 0)
    blocks, heads = (1, len(model.joint_blocks) - 2), []
    hooks, joint = [], {}
    for number in blocks:
        block = model.joint_blocks[number]
        taps = {"text": block.context_block.attn.ln_k, "picture": block.x_block.attn.ln_k, "q": block.x_block.attn.ln_q}
        for name, module in taps.items():
            seen = lambda m, a, out, at=(number, name): joint.update({at: out})  # noqa: E731
            hooks.append(module.register_forward_hook(seen))
    own = given.of(model)
    for hook in hooks:
        hook.remove()
    weights = {row: torch.rand(TOKENS, 2, generator=torch.Generator().manual_seed(row)) for row in (0, 2)}
    expected = []
    for row in (0, 2):
        sums = []
        for number in blocks:
            q, keys = joint[number, "q"][row], torch.cat([joint[number, "text"][row], joint[number, "picture"][row]])
            for head in range(q.shape[1]):
                attention = (q[:, head] @ keys[:, head].T * q.shape[-1] ** -0.5).softmax(dim=-1)
                assert attention.shape == (q.shape[0], registers + TOKENS + q.shape[0])
                sums.append(attention[:, registers : registers + TOKENS] @ weights[row])
        heads.append(len(sums))
        expected.append((sum(sums) / len(sums)).T)
    depth = len(model.joint_blocks)
    for family in (PLAIN, FAMILY):
        maps = replace(family, blocks=[(number + 0.5) / depth for number in blocks]).token_maps(model, size)
        maps.attach()
        with maps.record([(0, 0), None, (2, 0)], lambda row, context: weights[row[0]]):
            assert torch.equal(given.of(model), own)
        found, means, _ = maps.take()
        assert found == [(0, 0), (2, 0)]
        torch.testing.assert_close(means.flatten(2), torch.stack(expected), rtol=1e-4, atol=1e-6)
        assert maps.take().rows == []
        maps.detach()
    assert hooks_on(model) == 0


def failing_at_each(modules: list[nn.Module], call: Callable[[], object]) -> Iterator[None]:
    """Make ``call`` once for an exception and once for an interrupt at each of ``modules``, and
    yield after each."""
    for module in modules:
        for error in (ValueError, KeyboardInterrupt):

            def fail(*args: object, error: type = error) -> None:
                raise error

            handle = module.register_forward_hook(fail)
            try:
                call()
            except error:
                pass
            else:
                raise AssertionError("the module was not called")
            handle.remove()
            yield


def no_hook_stays(model: nn.Module, size: tuple[int, int]) -> None:
    """After success, an exception at any of the hooked modules, an interrupt, a run within a run.
    """
    given, index = Given.random(size), random_index(size)
    own = given.of(model)

    @contextmanager
    def observed() -> Iterator[None]:
        maps = FAMILY.token_maps(model, size)
        maps.attach()
        try:
            with at_levels(model, index), maps.record([(0, 0), None, None], lambda *_: torch.ones(TOKENS, 1)):
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
    outer = FAMILY.timesteps(model)
    outer.attach()
    hooks = hooks_on(model)
    assert torch.equal(call(), mixed)
    assert hooks_on(model) == hooks
    with outer.use(TIMESTEPS, index):
        assert torch.equal(given.of(model), mixed)
    outer.detach()
    assert hooks_on(model) == 0
    assert len(hooked) > len(model.joint_blocks) + 4
    for _ in failing_at_each(hooked, call):
        assert hooks_on(model) == 0
    assert torch.equal(given.of(model), own)
    assert torch.equal(call(), mixed)


def all_hold(make: Callable[..., nn.Module], sizes: list[tuple[int, int]]) -> None:
    """``make(dtype, **kind)`` gives a small model."""
    for size in sizes:
        for dtype in (torch.float32, torch.bfloat16):
            each_token_is_the_plain_run_at_its_level(make(dtype), size, dtype)
            a_constant_map_changes_no_bit(make(dtype), size, dtype)
            the_texts_tokens_keep_the_hosts_level(make(dtype), size, dtype)
        model = make(torch.float32)
        assert of(model) is FAMILY
        assert FAMILY.side(model) == 2
        a_row_at_one_level_is_the_models_own_call_at_it(model, size)
        both_forms_give_the_same(model, size)
        token_maps_are_the_slow_softmax(model, size)
        no_hook_stays(model, size)


def a1111s(webui: Path) -> Callable[..., nn.Module]:
    """AUTOMATIC1111's class, without the modules that it imports beside."""
    import types

    sys.path.insert(0, str(webui))
    sys.modules["modules.sd_hijack"] = types.ModuleType("modules.sd_hijack")
    from modules.models.sd3 import mmdit

    def make(dtype: torch.dtype, **kind: object) -> nn.Module:
        config = {"target": "torch.nn.Linear", "params": {"in_features": CONTEXT, "out_features": 192}}
        sizes = {"pos_embed_max_size": 16, "num_patches": 256, "adm_in_channels": POOLED, "in_channels": CHANNELS}
        model = mmdit.MMDiT(input_size=None, depth=3, context_embedder_config=config, **sizes, **kind)
        return random_weights(model, dtype)

    return make


def forges(webui: Path) -> Callable[..., nn.Module]:
    """Forge's class, which stands in a module of its own."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("mmditx", webui / "backend" / "nn" / "mmditx.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def make(dtype: torch.dtype, **kind: object) -> nn.Module:
        config = {"target": "torch.nn.Linear", "params": {"in_features": CONTEXT, "out_features": 192}}
        sizes = {"pos_embed_max_size": 16, "num_patches": 256, "adm_in_channels": POOLED, "in_channels": CHANNELS}
        model = module.MMDiTX(input_size=None, depth=3, context_embedder_config=config, **sizes, **kind)
        return random_weights(model, dtype)

    return make


if __name__ == "__main__":
    host, webui = sys.argv[1], Path(sys.argv[2])
    make = {"a1111": a1111s, "forge": forges}[host](webui)
    dual = {"x_block_self_attn_layers": [0, 1]} if host == "forge" else {}
    for kind in ({}, {"qk_norm": "rms", **dual}, {"register_length": 3}):
        all_hold(lambda dtype, kind=kind: make(dtype, **kind), [(8, 12)])
    print("all hold")
