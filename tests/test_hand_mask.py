"""Masks by hand: read, brought to the cells, joined with words, and run."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFile
from stand_ins import make_run, uniform_sigmas
from test_run import HEIGHT, WIDTH, latent, model

from asyndm_lib.clock.cells import Cells
from asyndm_lib.clock.clocks import Mask
from asyndm_lib.errors import AsynDMError, SettingsError
from asyndm_lib.hosts.common import hand_mask
from asyndm_lib.interface import arguments, infotext
from asyndm_lib.masks.hand import WithWords, by_hand, shares
from asyndm_lib.masks.source import FixedMask
from asyndm_lib.masks.target_masks import TIMINGS
from asyndm_lib.pictures import painting
from asyndm_lib.run.run import masks_of
from asyndm_lib.samplers.table import SAMPLERS
from asyndm_lib.settings.settings import MAX_MASK, Settings

CPU = torch.device("cpu")
LEFT = torch.zeros(20, 30, dtype=torch.bool)
LEFT[:, :15] = True
"""A drawing whose left half is painted."""


def cells(height: int, width: int, side: int = 1, images: int = 1) -> Cells:
    return Cells(images, height, width, side, CPU)


def png(picture: Image.Image, **options: object) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG", **options)
    return base64.b64encode(file.getvalue()).decode()


def drawn(mode: str = "L", paint: object = 255, ground: object = 0) -> Image.Image:
    picture = Image.new(mode, (30, 20), ground)
    ImageDraw.Draw(picture).rectangle((0, 0, 14, 19), fill=paint)
    return picture


# --- What is painted ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "picture",
    [
        drawn(),
        drawn("1", 1),
        drawn("L", 128, 127),
        drawn("RGB", (255, 255, 255)),
        drawn("RGB", (0, 255, 0), (0, 0, 255)),
        drawn("LA", (0, 255), (255, 0)),
        drawn("RGBA", (0, 0, 0, 255), (255, 255, 255, 0)),
        drawn("RGBA", (9, 9, 9, 128), (255, 255, 255, 127)),
        drawn("RGBA", (255, 255, 255, 255), (0, 0, 0, 255)),
        drawn("RGB", (255, 255, 255)).convert("P"),
    ],
    ids=lambda picture: picture.mode,
)
def test_painted_is_what_is_opaque_or_without_transparency_what_is_bright(picture):
    assert np.array_equal(painting.read(png(picture)), LEFT.numpy())


def test_a_palette_may_be_transparent():
    assert np.array_equal(painting.read(png(drawn("P", 1), transparency=0)), LEFT.numpy())


def test_a_data_url_and_line_breaks_are_read():
    text = png(drawn())
    for same in (f"data:image/png;base64,{text}", "\n".join(text[n : n + 76] for n in range(0, len(text), 76))):
        assert np.array_equal(painting.read(same), LEFT.numpy())


def test_the_text_of_a_picture_is_read_as_it_is_painted():
    for picture in (drawn(), drawn("RGBA", (9, 9, 9, 200), (255, 255, 255, 0))):
        assert np.array_equal(painting.read(painting.as_text(picture)), LEFT.numpy())


def header(width: int, height: int) -> str:
    """A PNG file that says it is so large."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = b"IDAT" + zlib.compress(bytes(1000))
    data = b"\x89PNG\r\n\x1a\n"
    for one in (chunk, pixels, b"IEND"):
        data += struct.pack(">I", len(one) - 4) + one + struct.pack(">I", zlib.crc32(one))
    return base64.b64encode(data).decode()


def jpeg() -> str:
    file = io.BytesIO()
    drawn().save(file, "JPEG")
    return base64.b64encode(file.getvalue()).decode()


WRONG = {
    "no base64": ("a cat!", "PNG picture in base64, not 'a cat!'"),
    "no ASCII": ("猫", "in base64"),
    "bytes that are no picture": (base64.b64encode(b"a cat").decode(), "no PNG picture"),
    "nothing in a data URL": ("data:image/png;base64,", "no PNG picture"),
    "a JPEG": (jpeg(), "no PNG picture"),
    "cut off": (base64.b64encode(base64.b64decode(png(Image.effect_noise((99, 99), 50)))[:2000]).decode(), "cut off"),
    "16 bits": (png(Image.fromarray(np.full((4, 4), 40000, np.uint16))), "eight bits"),
    "too many pixels": (header(6000, 6000), "6000x6000 pixels"),
    "a decompression bomb": (header(60000, 60000), "pixels"),
    "a side that cannot be": (header(2**31 - 1, 2**31 - 1), "pixels"),
    "no pixel": (header(0, 0), "Mask"),
    "too long": ("A" * (MAX_MASK + 1), f"at most {MAX_MASK}"),
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("truncated", [False, True])
@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_mask_is_refused_in_one_line(case, truncated, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", truncated)  # as WebUIs have it
    text, said = WRONG[case]
    with pytest.raises(SettingsError, match=said) as caught:
        painting.read(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200
    body = {"alwayson_scripts": {"AsynDM": {"args": [{"mask": text}]}}}
    with pytest.raises(SettingsError, match=said):
        arguments.check(body)


@given(st.binary(max_size=300), st.integers(0, 60))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_a_mask_or_one_line(noise, place):
    data = bytearray(base64.b64decode(png(drawn())))
    data[place : place + len(noise)] = noise
    for raw in (noise, bytes(data)):
        try:
            assert painting.read(base64.b64encode(raw).decode()).dtype == bool
        except SettingsError as error:
            assert "\n" not in str(error)  # noqa: PT017


def test_a_digest_names_a_mask():
    masks = [LEFT.numpy(), ~LEFT.numpy(), LEFT.numpy().T, LEFT.numpy()[:10], LEFT.numpy().reshape(30, 20)]
    digests = [painting.digest(mask) for mask in masks]
    assert len(set(digests)) == len(masks)
    assert all(len(one) == 12 and int(one, 16) >= 0 for one in digests)
    assert painting.digest(LEFT.numpy().copy()) == digests[0]


# --- From pixels to cells -------------------------------------------------------------------------


def counted(painted: np.ndarray, height: int, width: int, side: int) -> np.ndarray:
    """The share of each cell that is painted, by counting on a grid that both sizes divide."""
    fine = painted.repeat(height, 0).repeat(width, 1).astype(float)  # each latent pixel: painted.shape of them
    rows, columns = painted.shape
    out = np.empty((-(-height // side), -(-width // side)))
    for j in range(out.shape[0]):
        for i in range(out.shape[1]):
            own = fine[j * side * rows : (j + 1) * side * rows, i * side * columns : (i + 1) * side * columns]
            out[j, i] = own.mean()
    return out


@given(
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.tuples(st.integers(1, 7), st.integers(1, 7)),
    st.integers(1, 3),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=150, deadline=None)
def test_a_drawing_of_any_size_is_stretched_over_the_cells(drawn, latent, side, seed):
    painted = np.random.default_rng(seed).random(drawn) < 0.5
    found = shares(torch.from_numpy(painted), cells(*latent, side)).numpy()
    assert np.allclose(found, counted(painted, *latent, side), atol=1e-6)


def test_a_cell_lags_where_half_of_it_is_painted():
    painted = torch.zeros(6, 6, dtype=torch.bool)
    painted[:3, :3] = painted[3:, :3] = True  # half of the left cells; then less than half
    painted[:3, 1] = False
    painted[0, 1] = painted[1, 1] = True
    mask = by_hand(painted, 0.4, cells(2, 1, images=3))
    assert mask.related.tolist() == [[[[False], [True]]]] * 3
    assert mask.concavity.unique().item() == 0.4
    assert mask.related.shape == mask.concavity.shape == (3, 1, 2, 1)


@pytest.mark.parametrize("size", [(7, 9), (64, 64), (100, 3)])
def test_an_exact_half_lags_at_any_size(size):
    painted = torch.zeros(size[0] * 2, size[1], dtype=torch.bool)
    painted[::2] = True  # half of every cell
    assert by_hand(painted, 0.5, cells(*size)).related.all()


def test_an_empty_mask_and_one_too_thin_are_refused():
    thin = torch.zeros(80, 80, dtype=torch.bool)
    thin[:, 3] = True
    for empty in (torch.zeros(5, 5, dtype=torch.bool), thin):
        with pytest.raises(SettingsError, match="the mask is empty"):
            by_hand(empty, 0.5, cells(8, 8))


# --- With words -----------------------------------------------------------------------------------


class Words(FixedMask):
    """The masks of words, as a script has them: one per step, before them ``first``."""

    reads, maps = True, torch.zeros(2, 1, 3, 4)
    problems = frozenset({"theirs"})

    def __init__(self, steps: list[Mask], concavities: list[float], blind: bool = False, rehearsing: bool = False):
        self.steps, self.concavities, self.blind, self.rehearsing = steps, concavities, blind, rehearsing
        self.latest = steps[0]

    def after(self, i, recorded, step):
        return self.steps[i]


def some(seed: int, *concavities: float) -> Mask:
    noise = torch.rand(2, 1, 3, 4, generator=torch.Generator().manual_seed(seed))
    related = noise < 0.5
    return Mask(related, torch.where(noise < 0.25, concavities[0], concavities[-1]).double())


def of(mask: Mask) -> np.ndarray:
    """The concavity of every cell, nan where it is not related."""
    return torch.where(mask.related, mask.concavity, torch.nan).numpy()


LAGGING = torch.tensor([True, True, False, False]).expand(2, 1, 3, 4)
HAND = Mask(LAGGING, torch.tensor(0.5).double().expand(2, 1, 3, 4))


@pytest.mark.parametrize("both", [False, True])
def test_words_and_a_mask_are_joined_cell_by_cell(both):
    steps = [some(seed, 0.3, 0.8) for seed in range(4)]
    masks = WithWords(Words(steps, [0.3, 0.8]), HAND, 0.5, torch.tensor([True, False]), both)
    assert set(masks.concavities) == {0.3, 0.5, 0.8}
    assert masks.reads
    hand = of(HAND)
    for i, step in enumerate(steps):
        words, found = of(step), of(masks.after(i, None, 0))
        if both:
            assert np.array_equal(found[0], np.where(np.isnan(hand), np.nan, words)[0], equal_nan=True)
            assert np.array_equal(found[1], hand[1], equal_nan=True)  # whose prompt holds no target
        else:
            assert np.array_equal(found, np.fmax(hand, words), equal_nan=True)
    assert np.array_equal(of(masks.latest), of(masks.after(0, None, 0)), equal_nan=True)
    assert masks.problems == {"theirs"}


def test_the_ordinary_pass_of_static_masks_stays_ordinary():
    nothing = Mask(torch.zeros(2, 1, 3, 4, dtype=torch.bool), torch.zeros(2, 1, 3, 4))
    masks = WithWords(Words([nothing], [0.5], rehearsing=True), HAND, 0.5, torch.tensor([True, True]), False)
    assert masks.rehearsing
    assert not masks.after(0, None, 0).related.any()
    assert not masks.latest.related.any()


@pytest.mark.parametrize("both", [False, True])
def test_where_no_map_can_be_read_the_mask_alone_counts(both):
    masks = WithWords(Words([some(1, 0.3)], [0.3], blind=True), HAND, 0.5, torch.tensor([True, True]), both)
    assert not masks.blind
    assert np.array_equal(of(masks.after(0, None, 0)), of(HAND), equal_nan=True)
    assert any("the mask alone was used" in problem for problem in masks.problems)


# --- Runs -----------------------------------------------------------------------------------------


def alone(targets, settings, cells):
    """The masks of a run that has no target words."""
    return masks_of(None, settings, cells, LEFT)


def watched(run) -> list:
    seen = []
    run._observers = [seen.append]
    return seen


@pytest.mark.parametrize("timing", TIMINGS)
@pytest.mark.parametrize("sampler", ["sample_euler", "sample_dpmpp_2m", "restart_sampler"])
def test_a_painted_mask_is_that_of_every_step_whatever_the_timing(timing, sampler):
    x = latent(2)
    sigmas = uniform_sigmas(6)
    make = partial(make_run, x, sigmas, model, masks=alone, mask_timing=timing, region="painted")
    with make() as run:
        seen = watched(run)
        made = run.sample(SAMPLERS[sampler], x * sigmas[0])
    assert not run.rehearsing
    assert not run.problems
    assert run.chosen == [None, None]
    columns = torch.arange(WIDTH) < WIDTH / 2  # the middle one of nine is half painted
    masks = [one.mask.related for one in seen if one.mask is not None]
    assert masks
    for mask in masks:
        assert torch.equal(mask, columns.expand(2, 1, HEIGHT, WIDTH))
    with make_run(x, sigmas, model, whole_picture=True, concavity=0.0) as still:
        ordinary = still.sample(SAMPLERS[sampler], x * sigmas[0])
    assert not torch.equal(made, ordinary)


@pytest.mark.parametrize("timing", TIMINGS)
@pytest.mark.parametrize("how", ["union", "intersection"])
def test_a_run_with_words_and_a_mask(timing, how):
    x, sigmas = latent(2), uniform_sigmas(5)
    prompts = ["a cat and a dog", "dog"]
    options = {"targets": "cat", "mask_timing": timing, "with_words": how, "region": "painted"}
    masks = partial(masks_of, painted=LEFT)
    hand = (torch.arange(WIDTH) < WIDTH / 2).expand(1, HEIGHT, WIDTH)
    with make_run(x, sigmas, model, prompts=prompts, masks=masks, **options) as run:
        seen = watched(run)
        run.sample(SAMPLERS["sample_euler"], x * sigmas[0])
    found = [one.mask.related for one in seen if one.mask is not None]
    assert len(found) == 4
    for mask in found:
        assert torch.equal(mask[1], hand), "the image without the word has the mask alone"
    if how == "union":
        assert all((mask[0] | ~hand).all() for mask in found)
        assert any((mask[0] & ~hand).any() for mask in found)
    else:
        assert not any((mask[0] & ~hand).any() for mask in found)
        assert any((~mask[0] & hand).any() for mask in found)


# --- What a WebUI has -----------------------------------------------------------------------------


TEXT = png(drawn())
PAINTED = Settings(region="painted", mask=TEXT)


def test_the_mask_of_a_call():
    p = SimpleNamespace()
    assert hand_mask.of(p, Settings()) is None
    assert hand_mask.of(p, Settings(mask=TEXT)) is None
    assert hand_mask.of(p, Settings(region="painted", whole_picture=True)) is None
    found = hand_mask.of(p, PAINTED)
    assert torch.equal(found.painted, LEFT)
    assert found.digest == painting.digest(LEFT.numpy())
    with pytest.raises(SettingsError, match="no mask is painted; paint one"):
        hand_mask.of(p, Settings(region="painted"))
    for without in (p, SimpleNamespace(nmask=None)):
        with pytest.raises(SettingsError, match="no inpaint mask; inpaint a picture in img2img"):
            hand_mask.of(without, Settings(region="inpaint mask"))


@pytest.mark.parametrize("shape", [(1, 6, 5), (4, 6, 5), (1, 4, 6, 5), (1, 16, 1, 6, 5)])
def test_the_inpaint_mask_is_the_hosts_own(shape):
    own = torch.rand(6, 5, generator=torch.Generator().manual_seed(3))
    found = hand_mask.of(SimpleNamespace(nmask=own.half().expand(shape)), Settings(region="inpaint mask"))
    assert torch.equal(found.painted, own.half() >= 0.5)


def test_of_a_picture_of_which_only_the_masked_part_is_made_the_drawing_is_cut_alike():
    start = SimpleNamespace(width=60, height=40)
    p = SimpleNamespace(paste_to=(20, 10, 20, 30), init_images=[start])
    found = hand_mask.of(p, PAINTED)
    assert torch.equal(found.painted, LEFT[5:20, 10:20])
    assert found.digest == painting.digest(LEFT.numpy())
    tiny = hand_mask.of(SimpleNamespace(paste_to=(59, 39, 1, 1), init_images=[start]), PAINTED)
    assert tiny.painted.numel() == 1
    assert hand_mask.of(SimpleNamespace(paste_to=None), PAINTED).painted.shape == LEFT.shape


def test_a_second_pass_that_is_cut_to_size_has_the_drawing_cut_alike():
    p = SimpleNamespace(is_hr_pass=True, truncate_x=2, truncate_y=0, hr_upscale_to_x=48, hr_upscale_to_y=32)
    assert torch.equal(hand_mask.of(p, PAINTED).painted, LEFT[:, 5:25])
    p = SimpleNamespace(is_hr_pass=True, truncate_x=0, truncate_y=0, hr_upscale_to_x=48, hr_upscale_to_y=32)
    assert torch.equal(hand_mask.of(p, PAINTED).painted, LEFT)


def listed(mask: object) -> list:
    return [True, "cat", *[f.default for f in list(Settings.__dataclass_fields__.values())[1:-1]], mask]


def test_a_page_gives_its_canvas():
    strokes = drawn("RGBA", (200, 0, 0, 255), (0, 0, 0, 0))
    for canvas in (strokes, {"image": drawn("RGB"), "mask": drawn("RGB", (255, 255, 255))}):
        found = arguments.of(SimpleNamespace(), listed(canvas))
        assert np.array_equal(painting.read(found.mask), LEFT.numpy())
    for nothing in (None, {"image": None, "mask": None}, ""):
        assert arguments.of(SimpleNamespace(), listed(nothing)).mask == ""
    for text in (TEXT, {"image": TEXT, "mask": TEXT}):
        assert arguments.of(SimpleNamespace(), listed(text)).mask == TEXT
    with pytest.raises(AsynDMError, match="Mask must be text"):
        arguments.of(SimpleNamespace(), listed(7))


def test_who_names_a_mask_means_it():
    assert arguments.of(SimpleNamespace(), [{"mask": TEXT}]).region == "painted"
    for region in ("words", "painted", "inpaint mask"):
        assert arguments.of(SimpleNamespace(), [{"mask": TEXT, "region": region}]).region == region
    assert arguments.of(SimpleNamespace(), [{"mask": ""}]).region == "words"
    assert arguments.of(SimpleNamespace(), listed(TEXT)).region == "words"


def test_lists_of_before_stay_valid():
    assert arguments.of(SimpleNamespace(), listed(None)[:-3]) == Settings(targets="cat")


def test_an_infotext_has_a_masks_digest_and_says_that_it_is_lost():
    written = infotext.write(PAINTED, "1a2b3c4d5e6f")
    assert written == {"AsynDM region": "painted", "AsynDM mask": "1a2b3c4d5e6f"}
    assert "painted mask (1a2b3c4d5e6f)" in infotext.lost(written)
    assert "cannot restore" in infotext.lost(written)
    assert infotext.lost({"AsynDM region": "inpaint mask", "AsynDM mask": "1a2b3c4d5e6f"}) == ""
    assert infotext.lost({"AsynDM": "on"}) == infotext.lost({}) == ""
    assert "<img" not in infotext.lost({**written, "AsynDM mask": "<img src=x>"})
    assert infotext.READERS["region"](written) == "painted"
    assert infotext.READERS["mask"]({**written, "AsynDM mask": "x"}) is None
    infotext.erase(written)
    assert written == {}
