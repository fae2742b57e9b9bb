"""GroupNorm by noise level."""

from __future__ import annotations

import pytest
import torch
from ldm.modules.diffusionmodules.openaimodel import UNetModel, Upsample
from stand_ins import hooks_on, tiny_unet
from test_run import ldm_run, ldm_sizes
from torch import Tensor, nn

from asyndm_lib.bench.models import SD15
from asyndm_lib.demo import MODEL, TRANSFORMER
from asyndm_lib.evaluation.engine import Batches
from asyndm_lib.hosts.standalone.embedded import Request
from asyndm_lib.hosts.standalone.ldm_checkpoint import load
from asyndm_lib.models.parts.level_norms import UNSEEN, LevelNorms, Statistics, Table
from asyndm_lib.models.parts.own_pass import OwnPass
from asyndm_lib.models.unet import FAMILY, UNet, group_norms
from asyndm_lib.samplers.table import SAMPLERS
from asyndm_lib.settings.settings import Settings

ROWS = [(0, 0), (0, None)]
BY_LEVEL = {"normalisation": "by level"}
LEVELS = torch.tensor([500.0, 600.0, 700.0])
MEANS, SCALES = (0.5, 1.5, 2.0), (1.0, 3.0, 2.0)


@pytest.fixture
def layer():
    torch.manual_seed(0)
    norm = nn.GroupNorm(2, 6)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    model = nn.Sequential(norm).requires_grad_(False)
    norms = LevelNorms([norm], OwnPass(model, norm))
    norms.attach()
    yield model, norms
    norms.detach()
    assert hooks_on(model) == 0


@pytest.fixture
def content() -> Tensor:
    """A picture whose two halves are alike, so that each has the whole's statistics."""
    half = torch.randn(2, 6, 8, 4, generator=torch.Generator().manual_seed(1))
    return torch.cat([half, half], dim=3)


def at(level: int, content: Tensor) -> Tensor:
    return MEANS[level] + SCALES[level] * content


def seen(
    model: nn.Module, norms: LevelNorms, x: Tensor, timesteps: Tensor, index: Tensor | None = None, rows: list = ROWS
) -> Tensor:
    index = torch.zeros(len(x), 1, *x.shape[2:], dtype=torch.int64) if index is None else index
    with norms.use(rows, timesteps, index):
        return model(x)


def learnt(model: nn.Module, norms: LevelNorms, x: Tensor, timesteps: Tensor, rows: list = ROWS) -> Tensor:
    with norms.learning():
        return seen(model, norms, x, timesteps, rows=rows)


def right_half(level: int) -> Tensor:
    index = torch.zeros(2, 1, 8, 8, dtype=torch.int64)
    index[..., 4:] = level
    return index


def mixed(content: Tensor) -> Tensor:
    return torch.where(right_half(1) > 0, at(2, content), at(0, content))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_each_level_has_its_own_statistics(layer, content, dtype):
    model, norms = layer
    for level in (2, 1, 0):
        x = at(level, content)
        assert torch.equal(learnt(model, norms, x, LEVELS[level : level + 1]), model(x))
    model.to(dtype)
    y = seen(model, norms, mixed(content).to(dtype), LEVELS[[0, 2]], right_half(1))
    assert y.dtype == dtype
    tolerance = {"rtol": 1e-4, "atol": 1e-3} if dtype == torch.float32 else {"rtol": 0.05, "atol": 0.1}
    torch.testing.assert_close(y, model(content.to(dtype)), **tolerance)
    assert (model(mixed(content).to(dtype)) - model(content.to(dtype))).abs().max() > 0.3
    assert norms.problems == set()


def test_autocast_leaves_the_statistics_in_single_precision(layer, content):
    model, norms = layer
    wide = 300 * content  # whose variance half precision does not have
    with torch.autocast("cpu", torch.bfloat16):
        for level in (2, 1, 0):
            learnt(model, norms, at(level, wide), LEVELS[level : level + 1])
        y = seen(model, norms, mixed(wide), LEVELS[[0, 2]], right_half(1))
    assert norms._tables[tuple(ROWS)]._values.dtype == torch.float32
    torch.testing.assert_close(y.float(), model(wide), rtol=0.05, atol=0.1)


def test_only_an_ordinary_pass_is_learnt_from(layer, content):
    """Nor does a call in which a layer was left out, nor a second one at the same count."""
    model, norms = layer
    for level in (2, 0):
        learnt(model, norms, at(level, content), LEVELS[level : level + 1])
    known = norms._known[ROWS[0]]
    assert len(known.timesteps) == 2
    seen(model, norms, at(1, content), LEVELS[1:2])
    with norms.learning(), norms.use(ROWS, LEVELS[1:2], torch.zeros(2, 1, 8, 8, dtype=torch.int64)):
        pass
    assert len(known.timesteps) == 2
    twice = LEVELS[1:2]
    for _ in range(2):
        learnt(model, norms, at(1, content), twice)
    assert len(known.timesteps) == 3


def test_rows_that_were_in_fewer_calls_know_what_they_saw(layer, content):
    model, norms = layer
    other = [(5, 0), (5, None)]
    for level in (2, 0):
        learnt(model, norms, at(level, content), LEVELS[level : level + 1])
    learnt(model, norms, at(2, content), LEVELS[2:], rows=other)
    learnt(model, norms, at(0, content), LEVELS[:1], rows=[other[0], (6, 0)])
    x = mixed(content)
    y = seen(model, norms, x, LEVELS[[0, 2]], right_half(1), rows=[ROWS[0], other[1]])
    torch.testing.assert_close(y[0], model(content)[0], rtol=1e-4, atol=1e-3)
    assert torch.equal(y[1], model(x)[1])  # it knows a single level, which makes no difference
    assert norms.problems == set()
    assert torch.equal(seen(model, norms, x, LEVELS[[0, 2]], right_half(1), rows=[ROWS[0], (9, 0)]), model(x))
    assert norms.problems == {UNSEEN}


def test_before_anything_is_known_the_layer_is_the_models_own(layer, content):
    model, norms = layer
    x = mixed(content)
    assert torch.equal(seen(model, norms, x, LEVELS[[0, 2]], right_half(1)), model(x))
    assert norms.problems == {UNSEEN}


def test_a_row_at_one_level_keeps_its_bits_beside_one_at_two(layer, content):
    model, norms = layer
    for level in (2, 1):
        learnt(model, norms, at(level, content), LEVELS[level : level + 1])
    index = right_half(1)
    index[1] = 0
    x = mixed(content)
    y = seen(model, norms, x, LEVELS[[0, 2]], index)
    assert torch.equal(y[1], model(x)[1])
    assert (y[0] - model(x)[0]).abs().max() > 0.1


def test_batches_of_others_and_pieces_are_the_models_own(layer, content):
    model, norms = layer
    for level in (2, 1):
        learnt(model, norms, at(level, content), LEVELS[level : level + 1])
    x = mixed(content)
    with norms.use(ROWS, LEVELS[[0, 2]], right_half(1)):
        assert torch.equal(model(x[:1]), norms._norms[0](x[:1]))
        assert not torch.equal(model(x), nn.GroupNorm.forward(norms._norms[0], x))
    assert norms.problems == set()
    with norms.use(None, LEVELS[[0, 2]], right_half(1)):
        assert torch.equal(model(x), nn.GroupNorm.forward(norms._norms[0], x))
    assert norms.problems == {UNSEEN}


def table(*rows: list[float]) -> Table:
    """A table of rows whose only value at a timestep is the timestep itself."""
    known = []
    for row in rows:
        known.append(Statistics())
        for timestep in row:
            known[-1].add(torch.tensor([timestep]), torch.full((2, 1), timestep))
    return Table(known)


def test_between_two_levels_it_is_linear_and_beyond_them_that_of_the_nearest():
    wanted = torch.tensor([950.0, 900.0, 825.0, 600.0, 500.0, 0.0])
    values = table([800.0, 900.0, 600.0], [700.0], [600.0, 600.0]).at(wanted)
    assert values.shape == (3, 6, 2)
    assert torch.equal(values[..., 0], values[..., 1])
    torch.testing.assert_close(values[0, :, 0], torch.tensor([900.0, 900.0, 825.0, 600.0, 600.0, 600.0]))
    assert values[1].unique().tolist() == [700.0]
    assert values[2].unique().tolist() == [600.0]


def out_of(own, run, sampler, x):
    try:
        with run:
            return run.sample(SAMPLERS[sampler], x)
    finally:
        own.run = None


PROMPTS = ["a bird", "a cat", "two dogs and a cat"]


@pytest.mark.parametrize("timing", ["lagged", "fresh", "static"])
def test_a_picture_without_the_target_is_the_models_own_to_the_bit(timing):
    sigmas, x = ldm_sizes(3)
    plain = out_of(*ldm_run(PROMPTS, sigmas, x, mask_timing=timing), "sample_euler", x)
    own, run = ldm_run(PROMPTS, sigmas, x, mask_timing=timing, **BY_LEVEL)
    out = out_of(own, run, "sample_euler", x)
    assert torch.equal(out[0], plain[0])
    assert (out[1] - plain[1]).abs().max() > 1e-4
    assert (out[2] - plain[2]).abs().max() > 1e-4
    assert run.problems == set()
    assert hooks_on(own.unet) == 0
    again = out_of(*ldm_run(PROMPTS, sigmas, x, mask_timing=timing, **BY_LEVEL), "sample_euler", x)
    assert torch.equal(again, out)


@pytest.mark.parametrize("curve", ["quadratic", "exponential"])
def test_with_a_concavity_of_zero_nothing_changes_by_a_bit(curve):
    sigmas, x = ldm_sizes(2)
    settings = {"mask_timing": "fresh", "concavity": 0.0, "curve": curve}
    outs = [
        out_of(*ldm_run(["a cat", "a dog and a cat"], sigmas, x, **settings, **more), "sample_euler", x)
        for more in ({}, BY_LEVEL)
    ]
    assert torch.equal(*outs)


def test_a_picture_does_not_depend_on_those_beside_it():
    sigmas, x = ldm_sizes(2)
    outs = [
        out_of(*ldm_run([other, "a cat"], sigmas, x, mask_timing="fresh", **BY_LEVEL), "sample_euler", x)
        for other in ("a bird", "a cat and a cat")
    ]
    torch.testing.assert_close(outs[0][1], outs[1][1], rtol=1e-4, atol=1e-4)
    assert (outs[0][0] - outs[1][0]).abs().max() > 1e-4


@pytest.mark.parametrize("sampler", ["sample_heun", "sample_dpm_2", "restart_sampler", "sample_dpmpp_2m"])
def test_samplers_that_evaluate_a_level_twice_stay_sound(sampler):
    """The ordinary pass before leaves no trace, and is the only one that is made twice."""
    sigmas, x = ldm_sizes(1, 8)
    own, run = ldm_run(["a cat"], sigmas, x, mask_timing="fresh", **BY_LEVEL)
    out = out_of(own, run, sampler, x)
    plain = out_of(*ldm_run(["a cat"], sigmas, x, mask_timing="fresh"), sampler, x)
    assert torch.isfinite(out).all()
    assert out.abs().max() < 3 * plain.abs().max()
    assert run.problems == set()


@pytest.mark.parametrize("more", [{"concavity": 0.0}, {"whole_picture": True}, {}])
def test_an_ordinary_pass_comes_first_only_where_levels_can_differ(more):
    sigmas, x = ldm_sizes(1)
    counts = []
    for normalisation in ({}, BY_LEVEL):
        own, run = ldm_run(["a cat"], sigmas, x, mask_timing="fresh", **more, **normalisation)
        out_of(own, run, "sample_euler", x)
        counts.append(own.evaluations)
    assert counts[1] == counts[0] * (1 if more else 2)


@pytest.mark.parametrize("timing", ["lagged", "fresh", "static"])
def test_the_ordinary_pass_is_no_part_of_what_is_told(timing):
    sigmas, x = ldm_sizes(1)
    told = []
    for normalisation in ({}, BY_LEVEL):
        own, run = ldm_run(["a cat"], sigmas, x, mask_timing=timing, **normalisation)
        out_of(own, run, "sample_euler", x)
        told.append(run.outcome)
    (plain,), (by_level,) = (outcome.pictures for outcome in told)
    assert (told[1].steps, told[1].differing) == (told[0].steps, told[0].differing)
    assert by_level.words == plain.words
    assert by_level.share == pytest.approx(plain.share, rel=0.25)  # nothing is related in the ordinary pass
    assert by_level.lag > 0


@pytest.mark.parametrize("sampler", ["Euler a", "DPM++ 2M"])
def test_on_the_embedded_model_a_picture_stays_sound(sampler):
    """Statistics that a run had from its own corrected calls grew to thousands here."""
    batches = Batches(load(MODEL, None, torch.device("cpu")))
    request = Request("two pizzas and a cat", "", (1, 2), sampler, "karras", 16, 7.0, 64, 64)
    plain, by_level = (
        batches.sample(request, Settings(targets="pizzas, cat", concavity=0.9, mask_timing="fresh", **more))
        for more in ({}, BY_LEVEL)
    )
    assert by_level.abs().max() < 1.5 * plain.abs().max()
    assert (by_level - plain).abs().max() > 0.1


def test_an_error_in_the_middle_leaves_nothing():
    unet = tiny_unet()
    norms = FAMILY.norms(unet)
    norms.attach()
    with pytest.raises(ZeroDivisionError), norms.use(ROWS, LEVELS[:1], torch.zeros(2, 1, 8, 8, dtype=torch.int64)):
        raise ZeroDivisionError
    assert norms._call is None
    norms.detach()
    assert hooks_on(unet) == 0
    assert norms._known == {}


def test_a_transformer_is_as_it_was():
    batches = Batches(load(TRANSFORMER, None, torch.device("cpu")))
    request = Request("a cat", "", (1,), "Euler", "uniform", 4, 4.0, 64, 64)
    by_level, own = (batches.sample(request, Settings(targets="cat", **more)) for more in (BY_LEVEL, {}))
    assert torch.equal(by_level, own)


def test_where_nothing_pools_over_the_picture_it_is_said(monkeypatch):
    monkeypatch.setattr(UNet, "norms", lambda self, model: None)
    _, run = ldm_run(["a cat"], *ldm_sizes(1), **BY_LEVEL)
    assert run.problems == {f"normalisation by level changes nothing: {FAMILY.name} normalises each token by itself"}


def test_the_layers_are_those_of_the_finest_two_resolutions_of_the_way_up():
    unet = UNetModel(**{**SD15, "model_channels": 32, "num_heads": 4, "context_dim": 16})
    names = {module: name for name, module in unet.named_modules()}
    chosen = [names[norm] for norm in group_norms(unet)]
    expected = [f"output_blocks.{block}.{part}" for block in range(6, 12) for part in ("0.out_layers.0", "1.norm")]
    assert chosen == [*expected, "out.0"]
    for block in unet.output_blocks[8:]:
        block[-1] = nn.Identity() if isinstance(block[-1], Upsample) else block[-1]
    assert len(group_norms(unet)) > len(chosen)  # of two resolutions both are the finest
