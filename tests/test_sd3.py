"""Stable Diffusion 3's transformer: a timestep for every token, and token maps of its joint
attention."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import joint_checks
import pytest
import torch
from joint_checks import CHANNELS, CONTEXT, POOLED, random_weights
from torch import Tensor, nn

from asyndm_lib import models
from asyndm_lib.errors import Unsupported
from asyndm_lib.hosts.standalone.mmdit import MMDiT
from asyndm_lib.models import sd3
from asyndm_lib.models.parts.attention_sum import summed
from asyndm_lib.models.parts.joint_maps import AttentionMaps, JointLayer, JointLayers, OutputMaps, fused
from asyndm_lib.models.parts.own_pass import OwnPass

KINDS = {"3": {}, "3.5 large": {"qk_norm": "rms"}, "3.5 medium": {"qk_norm": "rms", "dual_blocks": 2}}
SIZES = [(8, 12), (7, 9), (2, 5)]
DTYPES = [torch.float32, torch.bfloat16]


def make(dtype: torch.dtype, kind: str = "3.5 medium", **sizes: object) -> nn.Module:
    sizes = {"head_size": 16, "pos_embed_max_size": 16, **KINDS[kind], **sizes}
    return random_weights(MMDiT(3, 96, CONTEXT, POOLED, CHANNELS, **sizes), dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_each_token_is_what_the_model_makes_of_it_at_its_own_level(kind, size, dtype):
    joint_checks.each_token_is_the_plain_run_at_its_level(make(dtype, kind), size, dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_where_nothing_lags_the_bits_are_the_models_own(kind, size, dtype):
    joint_checks.a_constant_map_changes_no_bit(make(dtype, kind), size, dtype)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_a_row_that_is_at_one_level_is_the_models_own_call_at_it(kind, size):
    joint_checks.a_row_at_one_level_is_the_models_own_call_at_it(make(torch.float32, kind), size)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_the_texts_tokens_keep_the_hosts_own_level(kind, dtype):
    joint_checks.the_texts_tokens_keep_the_hosts_level(make(dtype, kind), (8, 12), dtype)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_the_plain_form_and_the_fast_one_give_the_same(kind, size):
    joint_checks.both_forms_give_the_same(make(torch.float32, kind), size)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_token_maps_are_the_slow_softmax_over_all_tokens(kind, size):
    joint_checks.token_maps_are_the_slow_softmax(make(torch.float32, kind), size)


def test_no_hook_stays_on_any_path():
    joint_checks.no_hook_stays(make(torch.float32), (8, 12))


def test_the_webuis_own_class_passes_all_of_this():
    """In the WebUI's own Python."""
    webui = Path(os.environ.get("ASYNDM_WEBUI", "/nowhere"))
    classes = {"a1111": "modules/models/sd3/mmdit.py", "forge": "backend/nn/mmditx.py"}
    host = next((host for host, file in classes.items() if (webui / file).is_file()), None)
    if host is None:
        pytest.skip("ASYNDM_WEBUI names no WebUI that has this model")
    python = os.environ.get("ASYNDM_WEBUI_PYTHON", webui / "venv" / "bin" / "python")
    command = [python, "-W", "ignore", joint_checks.__file__, host, webui]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.endswith("all hold\n"), done.stderr


def test_the_family_is_known_by_its_parts():
    model = make(torch.float32)
    assert models.of(model) is sd3.FAMILY
    del model.final_layer
    with pytest.raises(Unsupported, match=r"\(MMDiT\) is not a Stable Diffusion 3.*no final_layer"):
        models.of(model)
    model = make(torch.float32)
    model.forward = torch.compile(model.forward)
    with pytest.raises(Unsupported, match="compiled"):
        models.of(model)


@pytest.mark.parametrize(
    "where",
    ["joint_blocks.1", "joint_blocks.0.x_block.adaLN_modulation", "joint_blocks.1.context_block.attn", "t_embedder"],
)
def test_a_compiled_part_is_unsupported_and_named(where):
    model = make(torch.float32)
    parent, _, name = where.rpartition(".")
    part = model.get_submodule(where)
    setattr(model.get_submodule(parent), name, torch.compile(part))
    with pytest.raises(Unsupported, match=f"{type(part).__name__}, the model or a part of it, is compiled"):
        models.of(model)


def test_a_compiled_part_that_nobody_watches_is_nothing_to_us():
    model = make(torch.float32)
    model.joint_blocks[0].x_block.mlp = torch.compile(model.joint_blocks[0].x_block.mlp)
    assert models.of(model) is sd3.FAMILY


@pytest.mark.parametrize("shares", [(0.0,), (0.5,), (0.9, 0.95), (0.0, 0.4, 1.0)])
def test_the_blocks_that_are_read_have_an_output_of_the_text(shares):
    model = make(torch.float32)
    attentions = [block.x_block.attn for block in model.joint_blocks]
    layers = sd3.joint_layers(model, (4, 6), shares).layers
    assert [attentions.index(layer.picture) for layer in layers] == sorted({min(1, int(3 * s)) for s in shares})


class Joint(nn.Module):
    """A joint attention of which only the parts matter that are watched.

    The prompt's stream has registers before the prompt and pads behind it; the picture's has the
    tokens of a reference picture behind its own. ``behind``: whether the prompt stands behind the
    picture.
    """

    HEADS, WIDTH, REGISTERS, TOKENS, PADS, REFERENCES = 3, 16, 2, 5, 4, 6

    def __init__(self, size: tuple[int, int], behind: bool, seed: int = 0):
        super().__init__()
        self.streams, self.entrance = nn.ModuleDict(), nn.Identity()
        for name in ("text", "picture"):
            parts = {part: nn.Identity() for part in ("ln_q", "ln_k", "proj")}
            self.streams[name] = nn.ModuleDict(parts)
        counts = {"text": self.REGISTERS + self.TOKENS + self.PADS, "picture": size[0] * size[1] + self.REFERENCES}
        random = torch.Generator().manual_seed(seed)
        self.order = ["picture", "text"] if behind else ["text", "picture"]
        self.projected = {
            name: [torch.randn(2, counts[name], self.HEADS, self.WIDTH, generator=random) * 1.5 for _ in "qkv"]
            for name in self.order
        }

    def forward(self, x: Tensor) -> Tensor:
        """The attention over the whole row of tokens, in the order of the streams."""
        self.entrance(x)
        row: list[list[Tensor]] = [[], [], []]
        for name in self.order:
            q, k, v = self.projected[name]
            for into, part in zip(row, (self.streams[name]["ln_q"](q), self.streams[name]["ln_k"](k), v), strict=True):
                into.append(part)
        q, k, v = (torch.cat(parts, dim=1).transpose(1, 2) for parts in row)
        self.attention = (q @ k.transpose(-1, -2) * self.WIDTH**-0.5).softmax(dim=-1)
        out = (self.attention @ v).transpose(1, 2).flatten(2)
        lengths = [self.projected[name][0].shape[1] for name in self.order]
        self.out = dict(zip(self.order, out.split(lengths, dim=1), strict=True))
        for name, own in self.out.items():
            self.streams[name]["proj"](own)
        return x

    def layers(self, size: tuple[int, int]) -> JointLayers:
        text, picture = (self._attributes(self.streams[name]) for name in ("text", "picture"))
        return JointLayers([JointLayer(text, picture)], size, self.REGISTERS, OwnPass(self, self.entrance))

    @staticmethod
    def _attributes(parts: nn.ModuleDict) -> object:
        return type("Attention", (), dict(parts.items()))


SIZE = 3, 4


def read(model: Joint, maps: object, weights: dict[int, Tensor]) -> Tensor:
    maps.attach()
    with maps.record([(0, 0), (1, 0)], lambda row, context: weights[row[0]]):
        model(torch.zeros(2, 1, 6, 8))
    rows, means, _ = maps.take()
    maps.detach()
    assert rows == [(0, 0), (1, 0)]
    assert joint_checks.hooks_on(model) == 0
    return means


def word_weights(targets: int = 2) -> dict[int, Tensor]:
    """Of tokens of the prompt; its pads count for nothing."""
    random = torch.Generator().manual_seed(4)
    own = torch.rand(2, Joint.TOKENS + Joint.PADS, targets, generator=random)
    own[:, Joint.TOKENS :] = 0
    return {0: own[0], 1: own[1]}


@pytest.mark.parametrize("form", [summed, fused])
@pytest.mark.parametrize("behind", [False, True], ids=["text before the picture", "text behind it"])
@pytest.mark.parametrize("targets", [1, 2, 40])
def test_pads_registers_and_references_take_their_share_of_the_attention(form: Callable, behind: bool, targets: int):
    model, weights = Joint(SIZE, behind), word_weights(targets)
    means = read(model, AttentionMaps(model.layers(SIZE), form), weights)
    cells = SIZE[0] * SIZE[1]
    first_cell = 0 if behind else Joint.REGISTERS + Joint.TOKENS + Joint.PADS
    first_word = cells + Joint.REFERENCES + Joint.REGISTERS if behind else Joint.REGISTERS
    words = slice(first_word, first_word + Joint.TOKENS)
    for row in (0, 1):
        attention = model.attention[row, :, first_cell : first_cell + cells].mean(dim=0)
        expected = attention[:, words] @ weights[row][: Joint.TOKENS]
        torch.testing.assert_close(means[row].flatten(1).T, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("behind", [False, True], ids=["text before the picture", "text behind it"])
def test_maps_of_outputs_are_how_much_more_a_cell_is_like_the_word_than_like_the_prompt(behind):
    model, weights = Joint(SIZE, behind), word_weights()
    means = read(model, OutputMaps(model.layers(SIZE)), weights)
    text = model.out["text"][:, Joint.REGISTERS :]
    seen = 0
    for row in (0, 1):
        for target in (0, 1):
            share = weights[row][:, target].sum()
            word = (weights[row][:, target : target + 1] / share * text[row]).sum(dim=0)
            for cell in range(SIZE[0] * SIZE[1]):
                o = model.out["picture"][row, cell]
                to_word, to_prompt = (torch.cosine_similarity(o, mean, dim=0) for mean in (word, text[row].mean(dim=0)))
                likeness = to_word - to_prompt
                own = means[row, target].flatten()[cell]
                torch.testing.assert_close(own, (likeness * share).clamp(min=0), rtol=1e-4, atol=1e-6)
                seen += bool(own > 0)
    assert 10 < seen < 45


def test_a_target_that_no_token_stands_for_has_no_map():
    model, weights = Joint(SIZE, False), word_weights()
    for own in weights.values():
        own[:, 1] = 0
    for maps in (AttentionMaps(model.layers(SIZE), fused), OutputMaps(model.layers(SIZE))):
        means = read(model, maps, weights)
        assert means[:, 1].abs().max() == 0
        assert means[:, 0].max() > 0


def test_under_autocast_too():
    """Layer norms then work in another precision than linear layers."""
    model, given = make(torch.float32), joint_checks.Given.random((8, 12))
    index = joint_checks.random_index((8, 12))
    index[1] = 0
    with torch.autocast("cpu", torch.bfloat16):
        own, outs = given.of(model), []
        for family in (sd3.PLAIN, sd3.FAMILY):
            with joint_checks.at_levels(model, index, family):
                outs.append(given.of(model))
            assert torch.equal(outs[-1][1], own[1])
    assert joint_checks.deviation(*outs) < 0.1 * joint_checks.deviation(outs[0], own)
