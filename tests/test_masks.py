"""Masks from token maps, and the nearest-neighbour resampling that carries them to the latent."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asyndm_lib.clock.clocks import Mask
from asyndm_lib.masks.threshold import everywhere, relate_alike
from asyndm_lib.masks.threshold import relate as relate_by_concavity
from asyndm_lib.models.parts.resampling import Resize, nearest, resize

THERE = torch.ones(1, 1, dtype=torch.bool)
# mean 2.5
MAP = torch.tensor([[[[1.0, 2.0], [2.5, 4.5]]]])


def f64(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def relate(
    maps: torch.Tensor, present: torch.Tensor, concavities: torch.Tensor, threshold: float, height: int, width: int
) -> Mask:
    """The mask of ``maps``. ``present`` is bool ``[B, T]``, ``concavities`` are ``[T]``."""
    return relate_by_concavity(maps, torch.where(present, concavities, -1.0), threshold, Resize(height, width))


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [
        (0.0, [True, True, True, True]),
        (0.8, [False, True, True, True]),  # 2.0 is 0.8 times the mean: at least, not above
        (1.0, [False, False, True, True]),
        (1.01, [False, False, False, True]),
        (1.9, [False, False, False, False]),
    ],
)
def test_a_pixel_belongs_to_a_target_from_the_threshold_on(threshold, expected):
    relation = relate(MAP, THERE, f64(0.5), threshold, 2, 2)
    assert relation.related.dtype == torch.bool
    assert relation.related.shape == (1, 1, 2, 2)
    assert relation.related.flatten().tolist() == expected


def test_the_mask_is_the_or_of_all_targets_with_the_largest_concavity_that_holds_the_pixel():
    maps = torch.tensor([[[[9.0, 9.0, 0.0, 0.0]], [[0.0, 9.0, 9.0, 0.0]], [[9.0, 0.0, 0.0, 0.0]]]])
    relation = relate(maps, torch.ones(1, 3, dtype=torch.bool), f64(0.3, 0.7, 0.0), 1.0, 1, 4)
    assert relation.related.flatten().tolist() == [True, True, True, False]
    assert relation.concavity[relation.related].tolist() == [0.3, 0.7, 0.7]
    assert relation.concavity.dtype == torch.float64


def test_a_target_of_concavity_0_relates_its_pixels_with_0():
    relation = relate(MAP, THERE, f64(0.0), 1.0, 2, 2)
    assert relation.related.flatten().tolist() == [False, False, True, True]
    assert (relation.concavity[relation.related] == 0).all()


def test_the_mean_is_each_images_and_each_targets_own():
    maps = torch.stack([MAP[0], 100 * MAP[0]]).repeat(1, 2, 1, 1) * torch.tensor([1.0, 1e-3])[None, :, None, None]
    relation = relate(maps, torch.ones(2, 2, dtype=torch.bool), f64(0.5, 0.5), 1.0, 2, 2)
    for image in range(2):
        assert relation.related[image].flatten().tolist() == [False, False, True, True]


def test_an_absent_target_relates_nothing_in_the_images_that_do_not_hold_it():
    maps = torch.tensor([[[9.0, 0.0, 0.0, 0.0]], [[0.0, 0.0, 0.0, 9.0]]]).expand(3, 2, 1, 4)
    present = torch.tensor([[True, False], [False, True], [False, False]])
    relation = relate(maps, present, f64(0.3, 0.7), 1.0, 1, 4)
    assert relation.related.flatten(1).tolist() == [[True] + [False] * 3, [False] * 3 + [True], [False] * 4]
    assert relation.concavity[relation.related].tolist() == [0.3, 0.7]


def test_an_absent_target_relates_nothing_even_where_its_map_is_all_zero():
    relation = relate(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, dtype=torch.bool), f64(0.5), 1.0, 2, 2)
    assert not relation.related.any()


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 40), st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_masks_are_up_sampled_to_the_nearest(h, w, height, width):
    maps = torch.rand(2, 1, h, w, generator=torch.Generator().manual_seed(h * 100 + w))
    relation = relate(maps, torch.ones(2, 1, dtype=torch.bool), f64(0.5), 1.0, height, width)
    assert relation.related.shape == relation.concavity.shape == (2, 1, height, width)
    small = maps >= maps.mean(dim=(2, 3), keepdim=True)
    for j in range(height):
        for i in range(width):
            own = small[:, 0, j * h // height, i * w // width]
            assert torch.equal(relation.related[:, 0, j, i], own)
            assert torch.equal(relation.concavity[:, 0, j, i] == 0.5, own)


@given(st.integers(1, 200), st.integers(1, 200))
@settings(max_examples=200)
def test_nearest_is_floor_of_j_times_size_over_out(out, size):
    assert nearest(out, size).tolist() == [(j * size) // out for j in range(out)]


def test_resize_down_by_a_whole_factor_is_the_strided_pick():
    map = torch.arange(2 * 12 * 20).view(2, 12, 20)
    assert torch.equal(resize(map, 3, 5), map[:, ::4, ::4])
    assert torch.equal(resize(map, 12, 20), map)


def test_resize_up_equals_torchs_nearest():
    map = torch.arange(15.0).view(1, 1, 3, 5)
    assert torch.equal(resize(map, 12, 20), torch.nn.functional.interpolate(map, (12, 20), mode="nearest"))


def test_everywhere_relates_every_pixel_of_the_images_whose_concavity_is_not_negative():
    relation = everywhere(f64(0.3, -1.0, 0.0), 2, 3)
    assert relation.related.shape == relation.concavity.shape == (3, 1, 2, 3)
    assert relation.related.flatten(1).all(dim=1).tolist() == [True, False, True]
    assert not relation.related[1].any()
    assert relation.concavity[:, 0, 0, 0].tolist() == [0.3, -1.0, 0.0]


@pytest.mark.parametrize("concavities", [[0.5], [0.5, 0.7]])
def test_a_map_of_zeros_relates_nothing(concavities):
    """As where no cell is more like a word than like the prompt."""
    maps = torch.zeros(1, len(concavities), 2, 3)
    to_cells = Resize(4, 6)
    k = torch.tensor(concavities, dtype=torch.float64)
    alike = relate_alike(maps, torch.ones(1, len(k), dtype=torch.bool), k[0], 1.0, to_cells)
    assert not alike.related.any()
    assert not relate_by_concavity(maps, k[None], 1.0, to_cells).related.any()
    maps[0, 0, 1, 2] = 1e-6
    assert relate_by_concavity(maps, k[None], 1.0, to_cells).related.sum() == 4
