"""Every picture of a batch has its own masks and its own noise: it is the picture of its seed
alone."""

import pictures
import pytest
from family import HOST
from requests_table import BASE, KINDS, SAMPLERS, SMALL, switched_on

pytestmark = pytest.mark.usefixtures("nothing_left", "quiet")

CLOSE = 2.0
"""The mean difference in levels that another batch size may make by rounding."""

SETTINGS = {
    "lagged": {"targets": "cat", "concavity": 1.0},
    "fresh": {"targets": "cat", "concavity": 1.0, "mask_timing": "fresh"},
    "static": {"targets": "cat", "concavity": 1.0, "mask_timing": "static"},
    "own concavities": {"targets": "cat:0.3, dog", "concavity": 1.0},
}


def alone(host, request, settings, seed):
    return host.make(switched_on({**request, "seed": seed}, settings)).pictures[0]


def compare(together, singles):
    distances = [pictures.distance(a, b) for a, b in zip(together, singles, strict=True)]
    others = [pictures.distance(a, b) for a, b in zip(together, singles[1:] + singles[:1], strict=True)]
    print(f"to the single picture: {distances}, to another one: {others}")
    assert max(distances) < CLOSE < min(others)


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("sampler", KINDS)
def test_batch_size_3(sampler, settings, host):
    request = {**BASE, "sampler_name": sampler}
    if sampler == "DDIM":
        request["eta"] = 1.0
    together = host.make(switched_on({**request, "batch_size": 3}, SETTINGS[settings])).pictures[-3:]
    compare(together, [alone(host, request, SETTINGS[settings], seed) for seed in (1, 2, 3)])


@pytest.mark.parametrize("sampler", [sampler for sampler in SAMPLERS if sampler not in KINDS])
def test_batch_size_2(sampler, host):
    if reason := HOST.lacks.get(f"batches of {sampler}"):
        pytest.skip(reason)
    request, settings = {**BASE, "sampler_name": sampler, **SMALL}, SETTINGS["fresh"]
    together = host.make(switched_on({**request, "batch_size": 2}, settings)).pictures[-2:]
    compare(together, [alone(host, request, settings, seed) for seed in (1, 2)])


@pytest.mark.parametrize("settings", SETTINGS)
def test_batch_count_2(settings, host):
    together = host.make(switched_on({**BASE, "n_iter": 2}, SETTINGS[settings])).pictures[-2:]
    singles = [alone(host, BASE, SETTINGS[settings], seed) for seed in (1, 2)]
    assert all(map(pictures.same_pixels, together, singles))


def test_img2img_batch_count_2(host, start_picture):
    request = {**BASE, "init_images": [start_picture], "denoising_strength": 0.7}
    made = []
    for changed in ({"n_iter": 2}, {"seed": 1}, {"seed": 2}):
        # The start picture's encoding depends on the random numbers that the job before leaves.
        host.make(BASE)
        made += host.make(switched_on({**request, **changed}), "img2img").pictures[-2:]
    first, second, *singles = made
    assert all(map(pictures.same_pixels, (first, second), singles))


def test_prompts_that_differ_within_a_batch(host):
    """The host's prompt matrix: the target stands in two of the four prompts, at different
    places."""
    matrix = {"script_name": "prompt matrix", "script_args": [False, False, "positive", "comma", 0]}
    request = {**BASE, "prompt": "a house|with a cat|with a dog", "batch_size": 4, **matrix}
    settings = SETTINGS["lagged"]
    answer = host.make(switched_on(request, settings))
    prompts = ["a house", "a house, with a cat", "a house, with a dog", "a house, with a cat, with a dog"]
    singles = [host.make(switched_on({**BASE, "prompt": prompt}, settings)) for prompt in prompts]
    assert [bool(single.messages) for single in singles] == [True, False, True, False]
    assert answer.messages == []
    distances = [pictures.distance(a, b.pictures[0]) for a, b in zip(answer.pictures[-4:], singles, strict=True)]
    assert max(distances) < CLOSE, distances


def test_each_half_of_and_counts_in_its_own_picture(host):
    request = {**BASE, "prompt": "a cat AND a dog:0.6"}
    settings = {"targets": "cat, dog:0.9", "concavity": 0.4}
    together = host.make(switched_on({**request, "batch_size": 3}, settings)).pictures[-3:]
    compare(together, [alone(host, request, settings, seed) for seed in (1, 2, 3)])
