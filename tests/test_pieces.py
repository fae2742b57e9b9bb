"""Pictures that the model is given in pieces: where the pieces are, their noise levels and maps."""

from __future__ import annotations

import functools
from contextlib import ExitStack

import pytest
import torch
from stand_ins import AttendingUNet, hooks_on, make_run, tiny_unet, uniform_sigmas
from torch import Tensor, nn

from asyndm_lib.clock.cells import Box, Cells, box_of
from asyndm_lib.errors import TakenApart
from asyndm_lib.hosts.common.pieces import Piece, Pieces, Region, given, stranger
from asyndm_lib.models.family import Recorded
from asyndm_lib.models.parts.own_pass import OwnPass
from asyndm_lib.models.unet import token_map_layers
from asyndm_lib.run.model_call import Told
from asyndm_lib.run.piece_maps import PieceMaps
from asyndm_lib.samplers.table import SAMPLERS

ROWS = [(0, 0), (0, 1), (1, 0), (1, 1), (0, None), (1, None)]
A, B, C = Box(0, 0, 4, 5), Box(0, 3, 4, 5), Box(2, 1, 4, 5)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def batch() -> Tensor:
    """The host's six rows: both images' latents, for every part and once more."""
    return noise(2, 4, 6, 8)[[image for image, _ in ROWS]]


def texts() -> Tensor:
    return noise(len(ROWS), 7, 3, seed=1)


def cut(x: Tensor, *boxes: Box) -> Tensor:
    return torch.cat([box.of(x) for box in boxes])


def cond(text: Tensor) -> dict:
    return {"c_crossattn": [text]}


def pieces(*regions: Region) -> Pieces:
    return Pieces(regions, [2, 2])


def test_a_piece_is_found_where_it_was_cut_out():
    picture = noise(4, 9, 7)
    for box in (Box(0, 0, 9, 7), Box(3, 2, 4, 5), Box(8, 6, 1, 1)):
        assert box_of(box.of(picture), picture) == box
    assert box_of(Box(3, 2, 4, 5).of(picture).half(), picture) == Box(3, 2, 4, 5)


def test_what_is_no_part_of_a_picture_or_several_is_not_found():
    picture = noise(4, 9, 7)
    assert box_of(picture[:, :3, :3] + 1, picture) is None
    assert box_of(picture[:, ::2, ::2], picture) is None
    assert box_of(noise(4, 12, 7), picture) is None
    assert box_of(torch.zeros(4, 2, 2), torch.zeros(4, 9, 7)) is None
    assert box_of(torch.full((4, 2, 2), torch.nan), torch.full((4, 9, 7), torch.nan)) is None


def test_tiles_hold_the_rows_in_order_and_know_their_boxes():
    seen, x, text = pieces(), batch(), texts()
    for _ in range(2):
        with seen.of_whole(x, Piece(ROWS), cond(text)):
            two = seen.of(cut(x, A, B), cond(text.repeat(2, 1, 1)))
            one = seen.of(cut(x, C), cond(text))
        assert two == Piece([*ROWS, *ROWS], None, [A] * 6 + [B] * 6)
        assert one == Piece(ROWS, None, [C] * 6)


def test_tiles_that_change_from_step_to_step_are_found_again():
    seen, x, text = pieces(), batch(), texts()
    for box in (A, B, A, C):
        with seen.of_whole(x, Piece(ROWS), cond(text)):
            assert seen.of(cut(x, box), cond(text)).boxes == [box] * 6
        x = x.flip(-1) * 2


def test_the_rows_of_one_box_may_come_in_several_calls():
    seen, x, text = pieces(), batch(), texts()
    with seen.of_whole(x, Piece(ROWS), cond(text)):
        rows = [seen.of(cut(x[n : n + 2], A), cond(text[n : n + 2])).rows for n in (0, 2, 4)]
        assert [row for part in rows for row in part] == ROWS
        assert seen.of(cut(x, A), cond(text)).rows == ROWS


def test_a_call_with_the_whole_picture_may_have_changed_it():
    seen, x, text = pieces(), batch(), texts()
    with seen.of_whole(x, Piece(ROWS), cond(text)):
        assert seen.of(x + 1, cond(text + 1)) == Piece(ROWS, None, [Box(0, 0, 6, 8)] * 6)


def test_what_the_model_is_told_of_each_row_goes_with_it():
    seen, x, text = pieces(), batch(), texts()
    with seen.of_whole(x, Piece(ROWS, Told(torch.arange(6.0), True)), cond(text)):
        told = seen.of(cut(x, A, B), cond(text.repeat(2, 1, 1))).told
    assert told.timestep
    assert told.factor.tolist() == [0, 1, 2, 3, 4, 5] * 2


def test_pieces_of_pieces_are_placed_in_the_picture():
    outer, inner, x, text = pieces(), pieces(), batch(), texts()
    with outer.of_whole(x, Piece(ROWS), cond(text)):
        piece = outer.of(cut(x, C), cond(text))
        with inner.of_whole(cut(x, C), piece, cond(text)):
            assert inner.of(cut(cut(x, C), Box(1, 2, 2, 2)), cond(text)).boxes == [Box(3, 3, 2, 2)] * 6


CHANGES = [lambda x: x * 2, lambda x: x[..., ::2, ::2], lambda x: nn.functional.pad(x, [4] * 4)]


@pytest.mark.parametrize("change", CHANGES)
def test_pieces_that_cannot_be_placed_are_refused(change):
    seen, x, text = pieces(), batch(), texts()
    with seen.of_whole(x, Piece(ROWS), cond(text)), pytest.raises(TakenApart, match="switch it or AsynDM off"):
        seen.of(change(cut(x, A)), cond(text))


def test_pieces_of_another_image_than_the_next_are_refused():
    seen, x, text = pieces(), batch(), texts()
    with seen.of_whole(x, Piece(ROWS), cond(text)), pytest.raises(TakenApart):
        seen.of(cut(x.flip(0), A), cond(text))


def test_a_flat_picture_is_placed_by_what_was_cut_before():
    seen, x, text = pieces(), batch(), texts()
    for picture in (x, torch.zeros_like(x)):
        with seen.of_whole(picture, Piece(ROWS), cond(text)):
            assert seen.of(cut(picture, B), cond(text)).boxes == [B] * 6
    seen, flat = pieces(), torch.zeros_like(x)
    with seen.of_whole(flat, Piece(ROWS), cond(text)), pytest.raises(TakenApart):
        seen.of(cut(flat, B), cond(text))


def test_a_region_has_the_parts_of_its_own_prompt():
    """Its prompt may be longer than the negative one, which is then another call."""
    regions = [Region(box, ["", ""], typed) for box, typed in ((C, "a"), (A, "b"), (A, ""), (A, "c"))]
    seen, x, text = pieces(*regions), batch(), texts()
    longer = noise(len(ROWS), 14, 3, seed=2)
    with seen.of_whole(x, Piece(ROWS), cond(text)):
        assert seen.of(cut(x, A, B), cond(text.repeat(2, 1, 1))).rows == ROWS * 2
        assert seen.of(cut(x[:4], C), cond(longer[:4])).rows == [(0, 2), (0, 3), (1, 2), (1, 3)]
        assert seen.of(cut(x[4:], C), cond(text[4:])).rows == ROWS[4:]
        assert seen.of(cut(x[:4], A), cond(longer[:4])).rows == [(0, 4), (0, 5), (1, 4), (1, 5)]
        assert seen.of(cut(x[4:], A), cond(text[4:])).rows == ROWS[4:]
        negative = torch.cat([text[:4], text[4:] + 1])
        assert seen.of(cut(x, A), cond(negative)).rows == ROWS, "only its negative prompt is its own"
        assert seen.of(cut(x, A), cond(text + 2)).rows == [(0, 8), (0, 9), (1, 8), (1, 9), (0, None), (1, None)]


def test_a_prompt_that_nobody_knows_is_refused():
    seen, x, text = pieces(Region(C, ["", ""], "a")), batch(), texts()
    with seen.of_whole(x, Piece(ROWS), cond(text)), pytest.raises(TakenApart):
        seen.of(cut(x, A), cond(text + 1))


def test_outside_a_strangers_call_nothing_is_known():
    seen, x, text = pieces(), batch(), texts()
    assert seen.of(x, cond(text)) == Piece()
    with seen.of_whole(x, Piece(), cond(text)):
        assert seen.of(cut(x, A), cond(text)) == Piece()


class Model(nn.Module):
    def forward(self, x):
        return x + 1


class Keeping:
    """A stranger that keeps the original as an attribute, of its own or of the model."""

    def __init__(self, model, on_model=False):
        self.keeper, self.numbers = model if on_model else self, torch.ones(3)
        self.keeper.original = model.forward
        model.forward = self.forward

    def forward(self, x):
        return 2 * self.keeper.original(x)


def _enclosing(model):
    original = model.forward
    model.forward = lambda x: 2 * original(x)


@pytest.mark.parametrize("take", [Keeping, functools.partial(Keeping, on_model=True), _enclosing])
def test_a_strangers_original_is_exchanged_and_comes_back(take):
    model = Model()
    assert stranger(model, "forward") is None
    take(model)
    theirs = stranger(model, "forward")
    assert theirs is model.forward
    with given(model, "forward", lambda own: lambda x: own(x) + 10) as found:
        assert found
        assert model(0) == 22
    assert model(0) == 2
    assert model.forward is theirs


def test_a_stranger_may_keep_the_original_where_nobody_looks():
    model = Model()
    kept = [model.forward]
    model.forward = lambda x: 2 * kept[0](x)
    with given(model, "forward", lambda own: None) as found:
        assert not found
        assert model(0) == 2


def test_an_extension_that_has_put_the_original_back_is_no_stranger():
    model = Model()
    Keeping(model)
    model.forward = Model.forward.__get__(model)
    assert stranger(model, "forward") is None


def test_maps_of_pieces_are_put_together_with_means_where_they_overlap():
    cells = Cells(2, 8, 12, 1, torch.device("cpu"))
    whole = noise(2, 1, 4, 6).abs()
    left, right = Box(0, 0, 8, 8), Box(0, 4, 8, 8)
    maps, share = PieceMaps(cells), torch.ones(1)
    for box in (left, right):
        there = whole[..., box.left // 2 : (box.left + box.width) // 2]
        maps.add(Recorded([(0, 0), (1, 0)], there + (box == right)), [box] * 2, [share] * 2)
    recorded = maps.whole((4, 6))
    assert recorded.rows == [(0, 0), (1, 0)]
    more = torch.tensor([0, 0, 0.5, 0.5, 1, 1])
    assert torch.allclose(recorded.maps, whole + more, atol=1e-6)


def test_maps_of_pieces_at_odd_places_are_near_to_those_of_the_whole():
    cells = Cells(1, 48, 32, 1, torch.device("cpu"))
    rows, columns = torch.meshgrid(torch.linspace(0, 3, 48), torch.linspace(0, 2, 32), indexing="ij")
    exact = (rows.sin() * columns.cos())[None, None]
    maps = PieceMaps(cells)
    for top in (0, 11, 24):
        for left in (0, 5, 8):
            box = Box(top, left, 24, 24)
            maps.add(Recorded([(0, 0)], nn.functional.avg_pool2d(box.of(exact), 4)), [box], [torch.ones(1)])
    assert (maps.whole((12, 8)).maps - nn.functional.avg_pool2d(exact, 4)).abs().max() < 0.1


def test_a_target_counts_in_the_pieces_whose_prompt_holds_it():
    cells, box = Cells(1, 4, 8, 1, torch.device("cpu")), Box(0, 0, 4, 4)
    maps = PieceMaps(cells)
    maps.add(Recorded([(0, 0)], torch.tensor([[[[0.0]], [[2.0]]]])), [Box(0, 0, 4, 8)], [torch.tensor([0.0, 0.5])])
    maps.add(Recorded([(0, 1)], torch.tensor([[[[3.0]], [[1.0]]]])), [box], [torch.tensor([1.0, 0.5])])
    _, whole, reach = maps.whole((1, 2))
    assert whole.tolist() == [[[[3.0, 0.0]], [[3.0, 4.0]]]]
    assert reach.tolist() == [[0.5, 1.0]]


def test_what_a_piece_shows_of_a_target_counts_as_far_as_the_piece_goes():
    cells, left, right = Cells(1, 4, 8, 1, torch.device("cpu")), Box(0, 0, 4, 4), Box(0, 4, 4, 4)
    maps, share = PieceMaps(cells), [torch.ones(1)]
    maps.add(Recorded([(0, 0)], torch.ones(1, 1, 1, 1), torch.full((1, 1), 0.5)), [left], share)
    maps.add(Recorded([(0, 0)], torch.ones(1, 1, 1, 1), torch.zeros(1, 1)), [right], share)
    assert maps.whole((1, 2)).reach.tolist() == [[0.25]]


class Attending(AttendingUNet):
    """It attends to each token by where a pixel is in the picture."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        attention = self.input_blocks[1].attn2
        self.time_embed(x.new_zeros(len(x), 2))
        places = x[:, :2, ::2, ::2].flatten(2).transpose(1, 2)
        query = torch.cat([places, 1 - places], dim=-1).repeat(1, 1, self._channels // 4)
        key = noise(1, self._context, self._channels, seed=5).to(x).expand(len(x), -1, -1)
        return attention.to_q(query), attention.to_k(key)


def _sampled(boxes: list[Box] | None, size: tuple[int, int] = (24, 16), **settings):
    """A run whose model is given pieces; the maps and the sigma maps of every step."""
    rows, columns = torch.meshgrid(torch.linspace(-3, 3, size[0]), torch.linspace(-3, 3, size[1]), indexing="ij")
    places = torch.stack([rows, columns, rows, columns])
    x = torch.stack([places, places.flip(-1)]).double()
    run = make_run(x, uniform_sigmas(6), lambda x, s: x / (1 + s**2), targets="cat", **settings)
    run.host.model = model = Attending()
    run.call._observe(model)
    maps, levels = [], []

    def predict(latent: Tensor, sigma: Tensor) -> Tensor:
        told = torch.full((2, 1, *size), float(sigma), dtype=torch.float64)
        for box in boxes or [None]:
            whole = [(0, 0), (1, 0), (0, None), (1, None)]
            batch = x[[0, 1, 0, 1]]
            own = None if box is None else [box] * 4
            with run.rows(whole, boxes=own) as here:
                model(batch if box is None else box.of(batch))
            for image in range(2):
                piece = told[image] if box is None else box.of(told[image])
                piece.copy_(torch.where(here.lagging, here.sigma, piece)[image])
                assert torch.equal(here.sigma[image], here.sigma[image + 2])
        levels.append(told)
        return latent / (1 + told**2)

    run.host.predict = predict
    after = run.masks.after

    def watched(i, recorded, step):
        if recorded is not None:
            maps.append(recorded)
        return after(i, recorded, step)

    run.masks.after = watched
    with run:
        picture = run.sample(SAMPLERS["sample_euler"], x * 10)
    assert hooks_on(model) == 0
    return picture, maps, levels, run


TILES = [Box(top, left, 12, 10) for top in (0, 6, 12) for left in (0, 6)]


@pytest.mark.parametrize("settings", [{}, {"mask_timing": "fresh"}, {"curve": "piecewise linear"}], ids=str)
def test_pixels_in_tiles_have_the_levels_and_maps_that_they_have_in_the_whole(settings):
    whole, apart = _sampled(None, **settings), _sampled(TILES, **settings)
    for one, other in zip(whole[1], apart[1], strict=True):
        assert one.rows == other.rows == [(0, 0), (1, 0)]
        assert torch.allclose(one.maps, other.maps, atol=1e-6)
    for one, other, seen in zip(whole[2], apart[2], apart[3].seen, strict=True):
        assert torch.equal(one, other)
        assert torch.equal(other, seen)
    assert len(whole[2][3].unique()) > 1, "nothing is proved where nothing lags"
    assert torch.equal(whole[0], apart[0])


def test_one_tile_that_is_the_whole_picture_is_the_whole_picture():
    whole, apart = _sampled(None), _sampled([Box(0, 0, 24, 16)])
    for one, other in zip(whole[1], apart[1], strict=True):
        assert torch.allclose(one.maps, other.maps, atol=1e-6)
    assert torch.equal(whole[0], apart[0])


def test_of_a_piece_the_same_layers_are_read_as_of_the_whole_picture():
    unet = tiny_unet(channel_mult=(1, 1, 1), attention_resolutions=[1, 2, 4])
    for latent in ((64, 96), (40, 96)):
        whole, piece = token_map_layers(unet, *latent), token_map_layers(unet, *latent, (32, 26))
        assert piece.attentions == whole.attentions
        factor = latent[0] // whole.size[0]
        assert piece.size == (32 // factor, -(-26 // factor))


def test_tiles_with_static_masks_are_read_in_the_ordinary_pass():
    whole, apart = _sampled(None, mask_timing="static"), _sampled(TILES, mask_timing="static")
    assert torch.equal(whole[0], apart[0])


def test_a_model_that_is_given_another_size_than_was_said_is_refused():
    x = noise(1, 4, 8, 12)
    run = make_run(x, uniform_sigmas(4), lambda x, s: x, targets="cat")

    def predict(x: Tensor, sigma: Tensor) -> Tensor:
        with run.rows([(0, 0), (0, None)]):
            run.unet(x[..., :4])
        return x

    run.host.predict = predict
    with run, pytest.raises(TakenApart):
        run.sample(SAMPLERS["sample_euler"], x)
    assert hooks_on(run.unet) == 0


def test_a_model_whose_blocks_are_given_pieces_of_its_batch_is_refused():
    unet = tiny_unet()
    own = unet.forward

    def forward(x: Tensor, **kwargs):
        return torch.cat([own(part, **kwargs) for part in x.split(8, dim=-1)], dim=-1)

    x, given = noise(2, 4, 8, 16), {"timesteps": torch.tensor([500.0, 500.0]), "context": noise(2, 5, 8)}
    with ExitStack() as stack:
        watch = OwnPass(unet, unet.input_blocks[0])
        watch.attach()
        stack.callback(watch.detach)
        unet(x, **given)
        unet.forward = forward
        with pytest.raises(TakenApart):
            unet(x, **given)
        unet.forward = lambda x, **kwargs: own(nn.functional.interpolate(x, scale_factor=0.5), **kwargs)
        unet(x, **given)
        assert watch.here
