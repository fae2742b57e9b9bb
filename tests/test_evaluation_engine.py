"""Many prompts at once, and controls of the masks, on a tiny checkpoint."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import tiny_checkpoints
import torch
from stand_ins import hooks_on

from asyndm_lib.errors import Unsupported
from asyndm_lib.evaluation import contact_sheet, engine, runner, seed_sheet, where
from asyndm_lib.evaluation.counter import CounterNetwork, Found
from asyndm_lib.evaluation.engine import Batches, Noise
from asyndm_lib.evaluation.methods import DM, FRESH, INVERTED, LAGGED, PEERS, RANDOM, Method, Way, controlled
from asyndm_lib.evaluation.peers.attend_and_excite import Excitement
from asyndm_lib.evaluation.peers.cfg import Guidance
from asyndm_lib.evaluation.peers.s_cfg import SemanticGuidance
from asyndm_lib.evaluation.peers.seg import SmoothedGuidance
from asyndm_lib.evaluation.prompt_sets import PLAIN, sets
from asyndm_lib.evaluation.prompts import Prompt, Shown
from asyndm_lib.evaluation.regions import Control, smoothed
from asyndm_lib.evaluation.results import collect
from asyndm_lib.evaluation.runner import Record, Round
from asyndm_lib.hosts.standalone.embedded import SYNCHRONOUS, Embedded, Request
from asyndm_lib.hosts.standalone.ldm_checkpoint import Checkpoint, load

CPU = torch.device("cpu")
CAT, STAR = Prompt("a cat and a basketball", "cat, basketball"), Prompt("a dog left of a star", "dog, star")
DDIM = Way("DDIM", "DDIM", "automatic", 6, 5.0, 1.0)
WAYS = [DDIM, Way("2M", "DPM++ 2M", "karras", 5, 7.0), Way("Euler a", "Euler a", "automatic", 5, 7.0)]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Checkpoint:
    return load(tiny_checkpoints.make(tmp_path_factory.mktemp("tiny"), "sd1"), None, CPU)


@pytest.fixture(scope="module")
def batches(checkpoint) -> Batches:
    return Batches(checkpoint)


def make(batches, prompts, seeds, way, method, observers=(), side=64):
    return batches.make(prompts, batches.noise(seeds, side, side), way, method, observers)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
@pytest.mark.parametrize("method", [DM, LAGGED, FRESH], ids=lambda method: method.name)
def test_a_batch_holds_the_pictures_of_the_embedded_host(batches, checkpoint, way, method):
    made = make(batches, [CAT, CAT, STAR], [3, 4, 5], way, method)
    for prompt, seeds, rows in ((CAT, [3, 4], made[:2]), (STAR, [5], made[2:])):
        settings = method.settings if method is DM else replace(method.settings, targets=prompt.targets)
        request = Request(prompt.text, "", seeds, way.sampler, way.schedule, way.steps, way.cfg, 64, 64, way.eta)
        # A batch of another size may round otherwise; DPM++ 2M made 2e-4 of it on one CPU.
        assert torch.allclose(rows, Embedded(checkpoint).sample(request, settings), rtol=0, atol=1e-3)


def test_noise_is_drawn_once_and_then_again_the_same():
    noise, x = Noise([1, 2], (4, 8, 8), CPU), torch.empty(2, 4, 8, 8)
    first = [noise.like(x) for _ in range(3)]
    noise.begin()
    with noise.kept():
        assert torch.equal(noise.like(x), first[0])
    again = [noise.like(x) for _ in range(3)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    generator = torch.Generator().manual_seed(2)
    assert torch.equal(first[1][1], [torch.randn(4, 8, 8, generator=generator) for _ in range(2)][1])


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("settings", [SYNCHRONOUS, FRESH.settings], ids=["alone", "with AsynDM"])
def test_every_peer_makes_pictures_of_its_own_and_leaves_nothing(batches, checkpoint, peer, settings):
    # The middle block has more than one pixel from here on.
    ordinary = make(batches, [CAT, STAR], [3, 4], DDIM, Method("x", settings), side=128)
    made = make(batches, [CAT, STAR], [3, 4], DDIM, Method(peer, settings, peer=peer), side=128)
    assert made.isfinite().all()
    assert not torch.equal(made, ordinary)
    assert hooks_on(checkpoint.diffusion_model) == 0


@pytest.mark.parametrize("peer", engine.FORMS_OF_DDIM)
def test_forms_of_ddim_are_refused_elsewhere(batches, peer):
    with pytest.raises(Unsupported, match="does not go with Euler a"):
        make(batches, [CAT], [3], WAYS[2], Method(peer, SYNCHRONOUS, peer=peer))


def test_attend_and_excite_without_a_step_is_the_ordinary_picture(batches, monkeypatch):
    monkeypatch.setattr(engine, "Excitement", partial(Excitement, strength=0.0))
    for settings in (SYNCHRONOUS, FRESH.settings):
        ordinary = make(batches, [CAT, STAR], [3, 4], DDIM, Method("x", settings))
        still = make(batches, [CAT, STAR], [3, 4], DDIM, Method("x", settings, peer="Attend-and-Excite"))
        assert torch.equal(still, ordinary)


def test_the_fast_layers_compute_what_ldms_do(checkpoint):
    unet = checkpoint.diffusion_model
    x, t = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.full((2,), 400.0)
    width = next(m for m in unet.modules() if hasattr(m, "attn2")).attn2.to_k.in_features
    context = torch.randn(2, 77, width, generator=torch.Generator().manual_seed(1))
    plain = unet(x, t, context=context)
    with engine._fast_layers(unet):
        fast = unet(x, t, context=context)
    assert torch.allclose(fast, plain, atol=1e-4)
    assert torch.equal(unet(x, t, context=context), plain)
    assert not any("forward" in vars(module) for module in unet.modules())


# Controls


def relations(batches, method, way=DDIM):
    """What was related in every advance."""
    seen = []
    make(batches, [CAT, STAR], [3, 4], way, method, [lambda one: seen.append(one.mask)])
    return [one for one in seen if one is not None]


def test_an_inverted_mask_relates_the_others(batches):
    plain = relations(batches, FRESH)
    inverted = relations(batches, INVERTED)
    assert torch.equal(inverted[0].related, ~plain[0].related)
    assert (inverted[0].concavity[inverted[0].related] - 0.7).abs().max() < 1e-6
    assert (inverted[0].concavity[~inverted[0].related] == 0).all()


def test_a_random_mask_has_the_same_area_elsewhere(batches):
    plain, random = relations(batches, FRESH), relations(batches, RANDOM)
    assert torch.equal(random[0].related.sum(dim=(1, 2, 3)), plain[0].related.sum(dim=(1, 2, 3)))
    assert not torch.equal(random[0].related, plain[0].related)


@pytest.mark.parametrize(("control", "lagging"), [({"stop": 0.4}, [1, 1, 1, 0, 0]), ({"start": 0.4}, [0, 0, 0, 1, 1])])
def test_a_window_holds_the_rest_on_the_hosts_clock(batches, control, lagging):
    seen = relations(batches, controlled("x", FRESH, **control))
    assert [int(one.related.any()) for one in seen] == lagging


def test_nothing_may_lag_before_the_first_map(batches):
    first = relations(batches, LAGGED)[0]
    assert first.related.all()
    assert not relations(batches, controlled("x", LAGGED, first=False))[0].related.any()


def test_smoothing_keeps_the_sum_and_spreads():
    maps = torch.zeros(1, 2, 9, 9)
    maps[0, 0, 4, 4] = 1.0
    blurred = smoothed(maps)
    assert blurred[0, 0, 3:6, 3:6].sum() == pytest.approx(1.0)
    assert blurred[0, 0, 4, 4] == pytest.approx(0.25)
    assert not blurred[0, 1].any()
    assert Control() == Control("own", True, 0.0, 1.0, False)


# The runner


class Stand:
    """Batches that only say what they were asked for."""

    device = CPU

    def __init__(self):
        self.made = []

    def noise(self, seeds, width, height):
        return tuple(seeds)

    def make(self, prompts, noise, way, method, observers=()):
        self.made += [(way.name, method.name, prompt.text, seed) for prompt, seed in zip(prompts, noise, strict=True)]
        return torch.zeros(len(prompts), 1)

    def pictures(self, latents):
        yield torch.zeros(len(latents), 3, 16, 16)


ROUNDS = [Round([DDIM], [DM, FRESH], "report", 0, 3), Round([WAYS[1]], [DM], "tuning", 1, 2)]
SMALL = sets(PLAIN, 2)


def run(stand, path, enough=lambda: False):
    record = Record(path)
    runner.run(ROUNDS, SMALL, stand, CounterNetwork(), record, 5, enough)
    return record


def test_what_is_done_is_not_done_again(tmp_path):
    whole, first, rest = Stand(), Stand(), Stand()
    run(whole, tmp_path / "whole.jsonl")
    assert len(whole.made) == len(set(whole.made)) == 4 * 2 * (2 * 3 + 1)
    path = tmp_path / "record.jsonl"
    calls = iter([False, False, True])
    run(first, path, lambda: next(calls))
    assert len(first.made) == 10
    text = path.read_text()
    path.write_text(text[:-20])  # stopped in the middle of a line
    record = run(rest, path)
    lost = 1 + len(json.loads(text.splitlines()[-1])["seeds"])
    assert len(rest.made) <= len(whole.made) - 10 + lost
    assert set(first.made) | set(rest.made) == set(whole.made)
    nothing = Stand()
    run(nothing, path)
    assert nothing.made == []
    assert record.machines == {"a CPU"}


def test_results_pair_what_both_have(tmp_path):
    record = Record(tmp_path / "record.jsonl")
    every = runner.jobs(SMALL, "report", range(2))
    right, wrong = Shown(True, 2, 0), Shown(False, 1, 1)
    record.add(DDIM, DM, every, [wrong] * len(every), "a CPU")
    first = [job for job in every if job.seed == 0]
    record.add(DDIM, FRESH, first, [right] * len(first), "a CPU")
    found = collect(Record(tmp_path / "record.jsonl"), ROUNDS, SMALL)
    ordinary, fresh = (next(r for r in found if r.method == m.name and r.set == "counts") for m in (DM, FRESH))
    assert (ordinary.pairs, ordinary.exact, ordinary.lost) == ([2, 2], [0, 0], 0)
    assert (fresh.pairs, fresh.exact, fresh.ordinary, fresh.gained, fresh.lost) == ([1, 1], [1, 1], [0, 0], 2, 0)
    assert fresh.of == sum(count for prompt in SMALL[1].report for _, count in prompt.things)


def test_the_contact_sheet_has_every_method_beside_the_other(batches, monkeypatch):
    monkeypatch.setattr(contact_sheet, "SIDE", 64)
    sheet = contact_sheet.draw(SMALL[:2], (DM, FRESH), DDIM, 1, batches, CounterNetwork())
    pixels = np.asarray(sheet)
    assert sheet.width == contact_sheet.WIDTH
    assert (pixels[200:400, 100:500] != 255).any()
    assert (pixels[200:400, 750:1100] != 255).any()


def test_a_row_per_method_has_a_picture_of_every_seed(batches, monkeypatch):
    monkeypatch.setattr(seed_sheet, "SIDE", 64)
    pixels = np.asarray(seed_sheet.draw([1, 2], DDIM, batches, CounterNetwork()))
    edge = (seed_sheet.WIDTH - 2 * seed_sheet.MARGIN - seed_sheet.LABEL - seed_sheet.GAP) // 2
    left = seed_sheet.MARGIN + seed_sheet.LABEL
    for row in range(3):
        middle = 90 + row * (edge + 26) + edge // 2
        for x in (left + edge // 2, left + edge + seed_sheet.GAP + edge // 2):
            assert (pixels[middle - 20 : middle + 20, x - 20 : x + 20] != 255).any()
    noise = batches.noise([1, 2], 64, 64)
    alone = contact_sheet.made([seed_sheet.PROMPT] * 2, noise, DDIM, DM, batches, CounterNetwork())
    assert [one.shape for one, _ in alone] == [(64, 64, 3)] * 2


def test_below_a_picture_stands_what_is_missing_and_too_much():
    def found(*names):
        return [Found(name, 0.0, 0.0) for name in names]

    said = seed_sheet.said
    assert said(seed_sheet.PROMPT, found("red heart", "dog", "sandwich")) == "right"
    assert said(seed_sheet.PROMPT, found("red heart", "red heart", "sandwich")) == "no dog, 2 red heart"
    assert said(Prompt("two cats", "cats", (("cat", 2),)), found("cat", "hat")) == "1 cat, 1 hat"


def test_where_the_masks_lie_is_told(capsys):
    where.main(["--prompts", "1", "--steps", "6", "--device", "cpu"])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("steps")]
    assert len(lines) == where.PARTS
    assert lines[0].startswith(
        "steps 1-1: related 100% of the picture and 100% of the objects' centres; 0 timesteps behind"
    )
    assert "related 100%" not in lines[-1]


def test_a_prompt_of_several_chunks_is_refused(batches):
    with pytest.raises(Unsupported, match="more than 75 tokens"):
        make(batches, [Prompt("cat " * 80, "cat")], [1], DDIM, DM)


def test_plain_guidance_is_the_default(batches):
    words = batches._targets([CAT], FRESH.settings)
    kinds = {peer: type(engine._guidance(peer, 5.0, words, CPU)) for peer in (None, *PEERS)}
    assert kinds == {
        None: Guidance,
        "Z-Sampling": Guidance,
        "CFG++": Guidance,
        "SEG": SmoothedGuidance,
        "S-CFG": SemanticGuidance,
        "Attend-and-Excite": Excitement,
    }


def test_the_targets_are_the_subjects(batches):
    words = batches._targets([CAT, STAR], SYNCHRONOUS)
    subjects = engine._subjects(words, CPU, 77)
    named = [target.text for target in words.targets]
    assert sorted(named) == ["basketball", "cat", "dog", "star"]
    there = subjects.sum(dim=1) > 0
    assert [[name for name, own in zip(named, row, strict=True) if own] for row in there.tolist()] == [
        [name for name in named if name in prompt.text] for prompt in (CAT, STAR)
    ]
