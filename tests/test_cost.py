"""What the method adds to a step, counted in PyTorch's operations: on a GPU each is at least one
launch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from ldm.modules.diffusionmodules.openaimodel import UNetModel
from torch.utils._python_dispatch import TorchDispatchMode

from asyndm_lib.bench import models
from asyndm_lib.bench.flux import Flux
from asyndm_lib.bench.loops import Loop
from asyndm_lib.bench.measure import Operations, operations
from asyndm_lib.bench.report import HEAD, Case, Figures, line, measured, save
from asyndm_lib.cli import BENCH_MODELS
from asyndm_lib.hosts.standalone.ldm_attention import CrossAttention, scaled_dot_product
from asyndm_lib.hosts.standalone.mmdit import MMDiT
from asyndm_lib.models import unet as unet_parts
from asyndm_lib.models.parts.patching import replaced

CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def _fused_attention() -> Iterator[None]:
    with replaced(CrossAttention, "forward", scaled_dot_product):
        yield


@pytest.fixture(scope="module")
def model() -> models.Model:
    """Stable Diffusion 1.5's UNet, with a tenth of the channels."""
    torch.manual_seed(0)
    unet = UNetModel(**{**models.SD15, "model_channels": 32, "num_heads": 4, "context_dim": 16}).eval()
    return models.Model("tiny", unet, 16, 16)


def a_step(model: models.Model, sampler: str = "Euler", lengths: tuple[int, int] = (6, 12), **options: Any) -> tuple:
    """The operations per step of the plain loop and of ours, and the CPU's waits. What is done once
    a run is left out."""
    short, long = (Loop(model, sampler, 1, steps, CPU, **options) for steps in lengths)

    def rate(way: str) -> tuple[float, float]:
        few, many = operations(getattr(short, way)), operations(getattr(long, way))
        steps = lengths[1] - lengths[0]
        pairs = (few.computing, many.computing), (few.waits, many.waits)
        return tuple((b.total() - a.total()) / steps for a, b in pairs)

    return rate("plain"), rate("asyndm")


@pytest.mark.parametrize(("sampler", "most"), [("Euler", 24), ("DPM++ 2M", 50), ("DPM++ SDE", 110)])
def test_a_step_adds_few_operations_and_no_wait(sampler, most, model):
    (plain, waits), (ours, our_waits) = a_step(model, sampler)
    assert plain > 600
    assert 0 < ours - plain <= most
    assert our_waits <= waits


def test_normalisation_by_level_adds_few_operations_to_the_steps_that_make_the_picture(model):
    layers = len(unet_parts.group_norms(model.model))
    assert layers == 13
    (_, (own, own_waits)), (_, (ours, our_waits)) = a_step(model), a_step(model, by_level=True)
    assert 3 * layers <= ours - own <= 3 * layers + 60
    assert our_waits <= own_waits


def test_a_step_of_sdxls_sixty_layers_adds_few_operations(monkeypatch):
    monkeypatch.setattr(unet_parts, "SMALL", 0)  # the maps of a large picture, for a small one
    unet = models.SdxlUNet(model_channels=32, num_head_channels=16, context_dim=16).eval()
    assert len(unet_parts.token_map_layers(unet, 16, 16).attentions) == 60
    (plain, _), (ours, _) = a_step(models.Model("tiny", unet, 16, 16, models.SDXL_LABEL), lengths=(4, 6))
    assert plain > 1500
    assert 0 < ours - plain <= 70


def test_many_targets_cost_no_more_operations(model):
    few, many = (a_step(model, targets=targets)[1] for targets in (1, 8))
    assert few == many


def test_a_long_schedule_costs_hardly_more_a_step(model):
    """There a pixel can be at any of up to 60 timesteps; in a short one at 12."""
    (plain, _), (ours, _) = a_step(model)
    (plain_late, _), (ours_late, _) = a_step(model, lengths=(40, 60))
    assert plain_late == plain
    # The tables of few steps fit together then, and each takes a linear layer a block.
    assert ours_late - ours <= 33


def transformer(depth: int, dual: int, size: int = 16) -> models.Model:
    """Stable Diffusion 3.5's form, small; ``dual`` of its blocks have a second attention."""
    torch.manual_seed(0)
    sizes = {"qk_norm": "rms", "dual_blocks": dual, "head_size": 16, "pos_embed_max_size": 32}
    net = MMDiT(depth, 64, 16, 12, **sizes).eval().requires_grad_(False)
    return models.Model("tiny", net, size, 16, 12, channels=16, tokens=33, flow=True)


@pytest.mark.parametrize(("depth", "dual"), [(4, 0), (8, 6)])
@pytest.mark.parametrize(("sampler", "evaluations"), [("Euler", 1), ("DPM++ 2M", 1), ("DPM++ SDE", 2)])
def test_a_step_of_the_transformer_adds_few_operations(sampler, evaluations, depth, dual):
    """Of a block six gathers, of one with a second attention nine."""
    (plain, _), (ours, _) = a_step(transformer(depth, dual), sampler, targets=8)
    assert plain > 70 * depth
    of_the_sampler = {"Euler": 0, "DPM++ 2M": 30, "DPM++ SDE": 60}[sampler]
    assert 0 < ours - plain <= evaluations * (58 + 6 * depth + 3 * dual) + of_the_sampler


def flux(depth: int, single_depth: int, fused: bool, size: int = 16) -> models.Model:
    """Flux.1's form, small."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "heads": 4, "axes": (4, 6, 6), "context_size": 16, "pooled_size": 12}
    net = Flux(depth, single_depth, fused=fused, **sizes).eval().requires_grad_(False)
    given = {"channels": 16, "tokens": 33, "flow": True, "timesteps": 1.0, "guidance": 3.5}
    return models.Model("tiny", net, size, 16, 12, **given)


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_of_flux_adds_few_operations(fused):
    """Of a double block six gathers, of a single one three; places of the picture alone and of the
    row with the text, and a label more than the other transformer has."""
    (plain, _), (ours, _) = a_step(flux(3, 5, fused), targets=8)
    assert plain > 400
    assert 0 < ours - plain <= 66 + 6 * 3 + 3 * 5


class _Largest(TorchDispatchMode):
    """How many elements the largest tensor has that is made inside the ``with``."""

    elements = 0

    def __torch_dispatch__(self, func: object, types: object, args: tuple = (), kwargs: dict | None = None) -> object:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            # A view of few elements, expanded, takes no memory.
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.untyped_storage().nbytes() // tensor.element_size())
        return out


@pytest.mark.parametrize("model", [transformer(4, 2, size=32), flux(2, 2, False, size=32)], ids=["SD 3.5", "Flux.1"])
def test_no_tensor_of_the_transformer_is_larger_than_the_models_own(model):
    """Neither the modulations of all tokens together nor a matrix of tokens by tokens."""
    largest = []
    loop = Loop(model, "Euler", 1, 4, CPU, targets=8)
    for way in (loop.plain, loop.asyndm):
        with _Largest() as made:
            way()
        largest.append(made.elements)
    assert largest[1] <= largest[0] < 4 * 256 * 256


def test_modulations_are_made_of_distinct_levels_alone():
    model, rows = transformer(4, 2), []
    for block in model.model.joint_blocks:
        block.x_block.adaLN_modulation[1].register_forward_pre_hook(lambda m, args: rows.append(args[0].shape))
    Loop(model, "Euler", 3, 8, CPU, targets=8).asyndm()
    assert len(rows) == 8 * 4
    # Six rows of guided pictures, at no more levels than there were steps.
    assert [shape[0] for shape in rows[::4]] == sorted(shape[0] for shape in rows[::4])
    assert max(shape[0] for shape in rows) <= 6 * 8


def test_views_are_not_operations_and_questions_are_waits():
    x = torch.arange(6.0)
    with Operations() as counted:
        x.view(2, 3).t()[1:].unsqueeze(0).expand(4, -1, -1)
    assert counted.computing.total() == counted.waits.total() == 0
    with Operations() as counted:
        (x + 1).sum().item()
    assert counted.computing == {"add": 1, "sum": 1}
    assert counted.waits == {"_local_scalar_dense": 1}


def test_the_report_has_a_line_and_a_record_for_every_case(model, monkeypatch, tmp_path):
    monkeypatch.setitem(models.MODELS, "SD 1.5", lambda device: model)
    cases = [Case("SD 1.5", "Euler", 1, 3), Case("SD 1.5", "DPM++ SDE", 2, 3, targets=3)]
    rows = list(measured(cases, 2, CPU))
    assert [row.case for row in rows] == cases
    for row in rows:
        assert row.ratios[0] <= row.time <= row.ratios[1]
        assert row.calls[1] > row.calls[0] > 600
        assert line(row).count("|") == 13
    save(rows, CPU, tmp_path / "there" / "bench.json")
    assert '"sampler": "DPM++ SDE"' in (tmp_path / "there" / "bench.json").read_text()


def test_the_command_offers_every_model():
    assert tuple(models.MODELS) == BENCH_MODELS


@pytest.mark.parametrize(
    ("file", "least"),
    [("bench-h100.json", 6), ("bench-h200.json", 4), ("bench-flux.json", 1), ("bench-by-level.json", 4)],
)
def test_the_pages_table_is_the_committed_measurement(file, least):
    root = Path(__file__).parents[1]
    rows = json.loads((root / "docs" / file).read_text())["rows"]
    lines = [line(Figures(**{**row, "case": Case(**row["case"])})) for row in rows]
    assert len(lines) >= least
    assert "\n".join([HEAD, *lines]) in (root / "docs" / "COST.md").read_text(encoding="utf-8")


def test_the_sdxl_stand_in_takes_labels_and_has_sdxls_depths():
    with torch.device("meta"):
        full = models.SdxlUNet()
    assert 2.56e9 < sum(p.numel() for p in full.parameters()) < 2.58e9
    unet = models.SdxlUNet(model_channels=32, num_head_channels=16, context_dim=16).eval()
    assert sum(name.endswith("attn2") for name, _ in unet.named_modules()) == 70


def test_the_flux_stand_in_has_the_weights_of_flux_1_dev():
    with torch.device("meta"):
        full = Flux()
    assert sum(p.numel() for p in full.parameters()) == 11_901_408_320
    shapes = {name: tuple(value.shape) for name, value in full.state_dict().items()}
    assert shapes["single_blocks.37.linear1.weight"] == (21504, 3072)
    assert shapes["double_blocks.18.img_mod.lin.weight"] == (18432, 3072)
    assert shapes["final_layer.adaLN_modulation.1.weight"] == (6144, 3072)
    assert shapes["double_blocks.0.txt_attn.norm.key_norm.scale"] == (128,)
    assert shapes["img_in.weight"] == (3072, 64)
