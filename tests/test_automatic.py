"""The choice of targets that nobody named."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stand_ins import AttendingUNet, make_run, uniform_sigmas, words
from torch import Tensor

from asyndm_lib.masks.choice import EVALUATIONS, MOST, SHARE, Choice, concentration
from asyndm_lib.prompt.candidates import candidates, named_or_candidates
from asyndm_lib.prompt.target_list import MAX_TARGETS, Target
from asyndm_lib.prompt.token_search import Token
from asyndm_lib.samplers.table import SAMPLERS


def batch(*prompts: str, named: dict[int, str] | None = None):
    own = [(Target(named[n]),) if named and n in named else () for n in range(len(prompts))]
    return named_or_candidates(own, [[[(10**6, prompt)]] for prompt in prompts], words)


def spot(share: float, size: int = 16) -> Tensor:
    """A token map of which this ``share`` of the picture is all."""
    cells = max(1, round(share * size * size))
    return torch.cat([torch.ones(cells), torch.zeros(size * size - cells)]).reshape(size, size)


def seen(targets, maps: Tensor, times: int = EVALUATIONS) -> Choice:
    choice = Choice(targets, torch.device("cpu"))
    for step in range(times):
        choice.see(maps, targets.present(step))
    return choice


# --- Candidates -----------------------------------------------------------------------------------


def test_candidates_are_found_over_all_parts_and_edits_of_a_prompt():
    parts = [[(3, "a cat on a mat"), (10, "a dog on a mat")], [(10, "the Cat, moon")]]
    assert [str(target) for target in candidates(parts, words)] == ["cat", "mat", "dog", "moon"]


def test_there_are_no_more_candidates_than_targets_can_be_and_few_texts_are_tokenized():
    calls = []

    def tokenize(text: str) -> list[Token]:
        calls.append(text)
        return words(text)

    found = candidates([[(10**6, " ".join(f"thing{n}" for n in range(500)))]], tokenize)
    assert [str(target) for target in found] == [f"thing{n}" for n in range(MAX_TARGETS)]
    assert len(calls) == MAX_TARGETS + 1


def test_what_the_tokenizer_cuts_otherwise_is_no_candidate():
    def one_inversion(text: str) -> list[Token]:
        return [Token("my cat", 1, True)] if text == "my cat" else words(text)

    assert candidates([[(10**6, "my cat")]], one_inversion) == ()


def test_each_image_has_its_own_candidates_and_named_ones_stay():
    targets = batch("a cat", "a dog and a bird", "of the", named={1: "dog"})
    assert targets.targets == (Target("cat"), Target("dog"))
    assert targets.automatic == {0, 2}
    assert targets.present(0).tolist() == [[True, False], [False, True], [False, False]]


# --- Concentration --------------------------------------------------------------------------------


@given(st.integers(2, 24), st.floats(0.01, 1), st.floats(1e-6, 1e6))
def test_concentration_is_that_of_the_part_of_the_place_whatever_the_scale(size, share, scale):
    map = spot(share, size)
    part = map.sum().item() / map.numel()
    expected = -math.log(part) / math.log(map.numel())
    assert concentration(map * scale).item() == pytest.approx(expected, abs=1e-5)


@given(st.integers(1, 8), st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_concentration_is_from_0_to_1_and_a_map_of_nothing_is_flat(h, w, seed):
    maps = torch.rand(3, h, w, generator=torch.Generator().manual_seed(seed)) ** 4
    maps[0] = 0
    found = concentration(maps)
    assert ((found >= -1e-6) & (found <= 1 + 1e-6)).all()
    assert found[0].item() == pytest.approx(0, abs=1e-6) or h * w == 1


# --- The choice -----------------------------------------------------------------------------------


def test_words_with_a_place_are_chosen_and_flat_ones_are_not():
    targets = batch("cat serenity dog happily")
    maps = torch.stack([spot(0.1), 0.9 + spot(0.3), spot(0.3), spot(1.0)])[None]
    assert seen(targets, maps).words() == [("cat", "dog")]


def test_each_image_is_compared_with_its_own_words():
    targets = batch("cat dog", "cat dog bird", named=None)
    maps = torch.stack([torch.stack([spot(0.02), spot(0.8), spot(0.02)]), torch.stack([spot(0.9), spot(0.8), spot(1)])])
    # The first image has no bird, however concentrated that map is.
    assert seen(targets, maps).words() == [("cat",), ("cat", "dog")]


def test_one_word_is_always_chosen_and_named_targets_are_left_alone():
    targets = batch("serenity", "cat dog", named={1: "dog"})
    flat = torch.ones(2, 2, 8, 8)
    choice = seen(targets, flat)
    assert choice.words() == [("serenity",), None]
    assert choice.chosen.tolist() == [[True, False], [True, True]]


def test_no_more_than_so_many_are_chosen():
    prompt = " ".join(f"thing{n}" for n in range(MOST + 5))
    maps = torch.stack([spot(0.3 - 0.01 * n) for n in range(MOST + 5)])[None]
    assert seen(batch(prompt), maps).words() == [tuple(f"thing{n}" for n in range(5, MOST + 5))]


def test_a_word_is_judged_by_the_first_evaluations_that_hold_it():
    prompts = [[[(EVALUATIONS + 1, "cat"), (10**6, "cat dog bird")]]]
    targets = named_or_candidates([()], prompts, words)
    choice = Choice(targets, torch.device("cpu"))
    early = torch.stack([spot(0.1), spot(0.001), spot(0.001)])[None]
    for step in range(EVALUATIONS + 1):
        choice.see(early, targets.present(step))
    assert choice.words() == [("cat",)]
    late = torch.stack([spot(1), spot(0.1), spot(0.9)])[None]
    for step in range(EVALUATIONS + 2, 2 * EVALUATIONS + 2):
        choice.see(late, targets.present(step))
    assert choice.words() == [("cat", "dog")]
    choice.see(late.flip(1), targets.present(10**3))  # all have been judged
    assert choice.words() == [("cat", "dog")]


@settings(max_examples=30)
@given(st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_what_is_chosen_is_as_concentrated_as_asked(count, seed):
    random = torch.Generator().manual_seed(seed)
    maps = torch.rand(1, count, 6, 6, generator=random) ** torch.randint(1, 12, (1, count, 1, 1), generator=random)
    chosen = seen(batch(" ".join(f"thing{n}" for n in range(count))), maps).chosen[0]
    found = concentration(maps[0])
    limit = max(SHARE * found.max(), found.sort(descending=True).values[min(MOST, count) - 1])
    near = (found - limit).abs() < 1e-6
    assert (chosen == (found >= limit))[~near].all()
    assert 1 <= chosen.sum() <= MOST


# --- In a run -------------------------------------------------------------------------------------


def model(x: Tensor, sigma: Tensor) -> Tensor:
    return torch.tanh((x + 0.3 * x.roll(1, -1)) / (1 + sigma))


def latent(images: int) -> Tensor:
    return torch.randn(images, 4, 6, 10, generator=torch.Generator().manual_seed(8), dtype=torch.float64)


def sampled(sampler: str = "sample_euler", n: int = 8, prompts=("a cat and a dog",), **how) -> tuple[Tensor, list]:
    sigmas = uniform_sigmas(n)
    x = latent(len(prompts)) * sigmas[0]
    with make_run(x, sigmas, model, prompts=list(prompts), **how) as run:
        out = run.sample(SAMPLERS[sampler], x)
        assert not run.problems
        return out, run.chosen


@pytest.mark.parametrize("timing", ["lagged", "fresh", "static"])
@pytest.mark.parametrize("sampler", ["sample_euler", "sample_heun", "sample_dpmpp_2m", "sample_dpmpp_2s_ancestral"])
def test_a_run_that_chooses_is_the_run_with_those_words_named(sampler, timing):
    out, [words] = sampled(sampler, mask_timing=timing)
    assert words == ("cat", "dog")
    named, [none] = sampled(sampler, mask_timing=timing, targets="cat, dog")
    assert none is None
    assert torch.equal(out, named)


@pytest.mark.parametrize("timing", ["lagged", "fresh", "static"])
def test_a_flat_word_relates_no_pixel_once_its_map_was_seen(timing, monkeypatch):
    def attend(unet: AttendingUNet, x: Tensor) -> tuple[Tensor, Tensor]:
        unet.time_embed(x.flatten(1))
        h, w = -(-x.shape[-2] // 2), -(-x.shape[-1] // 2)
        inside = torch.arange(h * w) < h * w // 4
        k = torch.zeros(12, 8)
        # "dog" has a quarter of the picture and "and" the rest; "serenity" is everywhere alike.
        k[5], k[3] = 1.0, -1.0
        attention = unet.input_blocks[1].attn2
        q = torch.where(inside[:, None], 4.0, -4.0).expand(-1, 8)
        return attention.to_q(q.repeat(len(x), 1, 1)), attention.to_k(k.repeat(len(x), 1, 1))

    monkeypatch.setattr(AttendingUNet, "forward", attend)
    how = {"prompts": ["a serenity and a dog"], "mask_timing": timing, "threshold": 0.9}
    out, chosen = sampled(**how)
    assert chosen == [("dog",)]
    dog, _ = sampled(**how, targets="dog")
    both, _ = sampled(**how, targets="serenity, dog")
    assert torch.equal(out, dog)
    assert not torch.equal(out, both)


@pytest.mark.parametrize("timing", ["lagged", "fresh", "static"])
def test_images_without_a_thing_are_the_hosts_own_and_their_neighbours_are_not(timing):
    prompts = ["of the", "a cat and a dog", ""]
    out, chosen = sampled(prompts=prompts, mask_timing=timing)
    assert chosen == [(), ("cat", "dog"), ()]
    own, _ = sampled(prompts=prompts, whole_picture=True, concavity=0.0)
    assert torch.equal(out[0], own[0])
    assert torch.equal(out[2], own[2])
    assert not torch.equal(out[1], own[1])


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("timing", ["lagged", "fresh", "static"])
def test_short_runs_choose_too(n, timing):
    _, [chosen] = sampled(n=n, mask_timing=timing)
    assert chosen == ("cat", "dog")


def test_several_descents_choose_once():
    ways = [uniform_sigmas(5), uniform_sigmas(4)]
    x = latent(1) * ways[0][0]

    def two(run, x):
        for step in run:
            step.predict(x)
            step.advance()
        return x

    with make_run(x, ways, model, prompts=["a cat and a dog"]) as run:
        run.sample(two, x)
        assert run.chosen == [("cat", "dog")]


def test_prompt_editing_and_and_parts():
    edited = [[(4, "a cat"), (10**6, "a dog")], "the moon"]
    _, [chosen] = sampled(prompts=[edited])
    assert set(chosen) == {"cat", "dog", "moon"}
