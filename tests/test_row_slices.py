"""The rows of each call of a host's model: its own by order, somebody else's by what they hold."""

from __future__ import annotations

import torch
from stand_ins import make_run, uniform_sigmas
from torch import Tensor

from asyndm_lib.hosts.common.row_slices import RowSlices
from asyndm_lib.samplers.table import SAMPLERS

ROWS = [(0, 0), (0, 1), (1, 0), (1, 1), (0, None), (1, None)]


def batch(seed: int = 0) -> Tensor:
    """The host's six rows: both images' latents, for every part and once more."""
    x = torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(seed))
    return x[[image for image, _ in ROWS]]


def test_the_hosts_own_calls_hold_its_rows_in_order():
    slices, x = RowSlices(ROWS), batch()
    for _ in range(2):
        slices.begin()
        assert [row for part in x.split(4) for row in slices.of(part)] == ROWS


def test_a_call_after_the_hosts_own_holds_the_images_of_its_pictures_and_is_not_read():
    slices, x = RowSlices(ROWS), batch()
    slices.begin()
    slices.of(x)
    assert slices.of(x) == [(image, None) for image, _ in ROWS]
    assert slices.of(x[[3, 0]]) == [(1, None), (0, None)]
    assert slices.of(x[2:3].half().float()) is None
    assert slices.of(x[2:3].expand(5, -1, -1, -1)) == [(1, None)] * 5


def test_a_call_in_a_callback_before_the_hosts_own_takes_none_of_its_rows():
    slices, x = RowSlices(ROWS), batch()
    slices.begin()
    with slices.others(x):
        assert slices.of(x[[5, 4]]) == [(1, None), (0, None)]
    assert slices.of(x) == ROWS


def test_rows_that_are_changed_are_known_by_their_number():
    slices, x = RowSlices(ROWS), batch()
    slices.begin()
    slices.of(x)
    assert slices.of(x + 1) == [(image, None) for image, _ in ROWS]
    assert slices.of(x[:2] + 1) == [(0, None), (1, None)]
    assert slices.of(x[:3] + 1) is None
    assert slices.of(x[:2, :, :2]) == [(0, None), (1, None)]


def test_a_single_picture_is_known_whatever_somebody_makes_of_it():
    slices, x = RowSlices([(0, 0), (0, None)]), batch()[:2]
    slices.begin()
    slices.of(x)
    assert slices.of(torch.zeros(3, 4, 2, 2)) == [(0, None)] * 3


def test_what_was_evaluated_is_forgotten_at_the_next_evaluation():
    slices = RowSlices(ROWS)
    slices.begin()
    slices.of(batch())
    slices.begin()
    slices.of(batch(1)[:3])
    with slices.others():
        assert slices.of(batch(0)[:1]) is None


def test_an_extra_call_within_an_evaluation_is_at_the_steps_levels_and_leaves_the_masks():
    """Somebody's guidance evaluates the model again; the picture's own masks stay as they were."""
    sigmas, x = uniform_sigmas(6), torch.randn(1, 4, 8, 12, generator=torch.Generator().manual_seed(1))
    seen, latents = [], []
    for slices in ([2], [2, 2]):
        with make_run(x, sigmas, lambda x, s: x / (1 + s**2), targets="cat", slices=slices) as run:
            run.unet.forward = alike(run.unet.forward)
            latents.append(run.sample(SAMPLERS["sample_euler"], x * sigmas[0]))
        seen.append(torch.stack(run.seen))
    assert len(seen[0].unique()) > 6
    assert torch.equal(*seen)
    assert torch.equal(*latents)


def alike(forward):
    """A model that attends in each call as it did in its first."""
    first = {}

    def attending(x: Tensor):
        if not first:
            first["state"] = forward.__self__._random.get_state()
        forward.__self__._random.set_state(first["state"])
        return forward(x)

    return attending


def texts(*parts: str) -> Tensor:
    """The encoded prompts of the conditional rows: the same for the same word."""
    return torch.stack([torch.full((3, 2), float(sum(map(ord, part)))) for part in parts])


def test_a_batch_that_somebody_puts_in_another_order_is_named_by_what_its_rows_hold():
    """Regional Prompter's latent mode sends part by part, not image by image."""
    slices, x = RowSlices(ROWS), batch()
    slices.begin()
    order = [0, 2, 1, 3, 4, 5]
    text = texts("a cat", "a dog", "a cat", "a dog")
    slices.reorder(x[order], text[order[:4]], text)
    named = [ROWS[n] for n in order]
    assert [row for part in x[order].split(2) for row in slices.of(part)] == named
    assert slices.of(x[[3, 0]]) == [(1, None), (0, None)]
    slices.begin()
    assert slices.of(x) == ROWS, "it holds for one evaluation"


def test_a_batch_that_is_changed_otherwise_keeps_its_order():
    text = texts("a cat", "a dog", "a bird", "a fish")
    changed = batch() + torch.arange(6).view(6, 1, 1, 1)
    for x, own in ((changed, text), (batch(), text + 1), (batch()[:2], text), (batch(), text[:1])):
        slices = RowSlices(ROWS)
        slices.begin()
        slices.reorder(x, own, text)
        assert slices.of(batch()) == ROWS


def test_rows_that_are_alike_keep_their_own_names():
    slices, x = RowSlices(ROWS), batch()
    slices.begin()
    text = texts("a cat", "a cat", "a cat", "a dog")
    slices.reorder(x, text, text)
    assert slices.of(x) == ROWS
