"""The film of a run, and the sheet drawn of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageFont

from asyndm_lib.clock.clocks import Mask
from asyndm_lib.clock.sigma_map import SigmaMap
from asyndm_lib.pictures import drawing, sheet
from asyndm_lib.pictures.film import Film, Frame, Heat, Reel
from asyndm_lib.run.step import Seen

SIZE = 8, 6


def seen(i: int, total: int, related: torch.Tensor | None, maps: torch.Tensor | None = None) -> Seen:
    """A step of two images; the timestep of a pixel is 10 times the step, and 1 more where its
    column is odd."""
    index = (torch.arange(SIZE[1]) % 2).expand(2, 1, *SIZE)
    sigma = SigmaMap(torch.tensor(1.0 + i), torch.tensor([2.0, 3.0]), index, torch.tensor([10.0 * i, 10.0 * i + 1]))
    relation = None if related is None else Mask(related[:, None], related[:, None].double())
    return Seen(i, total, sigma, relation, maps)


def masks(*rows: int) -> torch.Tensor:
    """A mask for each image of its first rows."""
    return torch.stack([(torch.arange(SIZE[0]) < n)[:, None].expand(SIZE) for n in rows])


@pytest.mark.parametrize(
    ("total", "kept"), [(1, 1), (2, 1), (5, 4), (12, 11), (13, 12), (30, 12), (150, 12), (999, 12)]
)
def test_steps_are_kept_evenly_and_the_first_among_them(total, kept):
    film = Film((), 12)
    for i in range(total):
        film(seen(i, total, masks(1, 2) if i + 1 < total else None))
    numbers = [frame.i for frame in film.reel(0).frames]
    assert len(film) == len(numbers) <= kept
    assert numbers[0] == 0
    if total > 1:
        assert total - 1 not in numbers
    if total > 12:
        assert len(numbers) == 12
        steps = np.diff(numbers)
        assert steps.max() - steps.min() <= 1


def test_every_image_has_its_own_frames_and_mask():
    film = Film((), 4)
    for i in range(5):
        film(seen(i, 5, masks(i, i + 1) if i < 4 else None))
    for image in (0, 1):
        reel = film.reel(image)
        assert [frame.mask.sum() // SIZE[1] for frame in reel.frames] == [i + image for i in range(4)]
        assert [frame.sigma for frame in reel.frames] == [1.0, 2.0, 3.0, 4.0]
        assert reel.frames[3].timesteps[0].tolist() == [30, 31] * 3
        assert reel.mask.sum() // SIZE[1] == 3 + image
        assert reel.step == 3


def test_a_token_map_is_the_mean_over_the_steps_that_held_the_target():
    film = Film(["cat", "dog", "absent"], 12)
    one = torch.zeros(2, 3, 2, 2)
    one[:, 0, 0, 0] = 0.5  # all in one of four pixels: 4 times the mean
    both = one.clone()
    both[1, 1] = torch.tensor([[0.1, 0.1], [0.3, 0.3]])
    film(seen(0, 3, masks(8, 8), one))
    film(seen(1, 3, masks(1, 1), both))
    film(seen(2, 3, None))
    first, second = film.reel(0).heats, film.reel(1).heats
    assert [heat.name for heat in first] == ["cat"]
    assert [heat.name for heat in second] == ["cat", "dog"]
    assert second[0].times.tolist() == [[4, 0], [0, 0]]
    np.testing.assert_allclose(second[1].times, [[0.5, 0.5], [1.5, 1.5]], rtol=1e-6)


def test_of_what_was_tried_only_the_chosen_targets_are_shown():
    film = Film(["cat", "dog"], 12)
    film(seen(0, 3, masks(8, 8), torch.ones(2, 2, 2, 2)))
    film.chose([("dog",), None])
    assert [[heat.name for heat in film.reel(image).heats] for image in (0, 1)] == [["dog"], ["cat", "dog"]]


def test_maps_of_another_size_and_of_no_interest():
    film = Film(["cat"], 12)
    film(seen(0, 3, masks(8, 8), torch.ones(2, 1, 2, 2)))
    film(seen(1, 3, masks(8, 8), torch.ones(2, 1, 4, 4)))  # a refiner's
    assert film.reel(0).heats[0].times.tolist() == [[1, 1], [1, 1]]
    bare = Film((), 12)
    bare(seen(0, 3, masks(8, 8), torch.ones(2, 1, 2, 2)))
    assert bare.reel(0).heats == []


def test_what_it_keeps_is_small():
    """The film of 150 steps of a batch of 8 at 128 × 128."""
    film = Film([f"target {n}" for n in range(64)], 12)
    index = torch.zeros(8, 1, 128, 128, dtype=torch.int64)
    related = Mask(index > 0, index.double())
    sigma = SigmaMap(torch.tensor(1.0), torch.ones(1), index, torch.ones(1))
    for i in range(150):
        film(Seen(i, 150, sigma, related, torch.ones(8, 64, 32, 32)))
    kept = [tensor for step in film._steps for tensor in step if isinstance(tensor, torch.Tensor)]
    kept += [*film._maps, film._last[1]]
    assert sum(tensor.nbytes for tensor in kept) < 12e6


def test_clear():
    film = Film((), 12)
    film(seen(0, 1, None))
    film.clear()
    assert len(film) == 0


def reel(width: int = 8, height: int = 8, targets: int = 2, frames: int = 12, names: str = "target {}") -> Reel:
    rng = np.random.default_rng(0)
    mask = np.zeros((height, width), dtype=bool)
    mask[: height // 2, : width // 2] = True
    strip = [Frame(i, 30, 14.6 / (i + 1), rng.random((height, width)) * 999, mask) for i in range(frames)]
    heats = [Heat(names.format(n), rng.random((max(1, height // 2), max(1, width // 2)))) for n in range(targets)]
    return Reel(strip, mask, 28, heats)


def picture(width: int, height: int) -> Image.Image:
    return Image.effect_mandelbrot((width, height), (-2, -1.5, 1, 1.5), 20).convert("RGB")


def drawn(image: Image.Image, of: Reel, lines: tuple[str, ...] = ("a cat", "seed 1"), **options: object) -> np.ndarray:
    made = sheet.draw(image, of, lines, **options)
    assert made.mode == "RGB"
    pixels = np.asarray(made)
    edges = (pixels[:, : drawing.MARGIN - 4], pixels[:, 4 - drawing.MARGIN :], pixels[:10], pixels[-10:])
    assert all((edge == drawing.PAPER).all() for edge in edges), "something is cut off"
    return pixels


@pytest.mark.parametrize(
    ("width", "height"),
    [(512, 512), (512, 768), (1024, 256), (64, 2048), (2048, 64), (16, 16), (72, 1032), (4096, 4096)],
)
def test_any_shape_of_picture(width, height):
    pixels = drawn(picture(width, height), reel(max(1, width // 8), max(1, height // 8)))
    assert pixels.shape[1] == drawing.WIDTH
    assert 400 < pixels.shape[0] < 1700
    assert (pixels == drawing.EDGE).all(axis=-1).any(), "no outline"


def test_the_picture_may_be_of_another_kind():
    assert drawn(picture(64, 64).convert("RGBA"), reel()).shape == drawn(picture(64, 64), reel()).shape


def test_the_whole_picture_has_no_token_maps():
    assert len(drawn(picture(64, 64), reel(targets=0))) <= len(drawn(picture(64, 64), reel(targets=2)))


@pytest.mark.parametrize("frames", [1, 2, 6, 7, 12])
def test_any_number_of_frames(frames):
    drawn(picture(64, 64), reel(frames=frames))


def test_of_64_targets_some_are_drawn_and_the_rest_are_named():
    few, many = (drawn(picture(64, 64), reel(targets=n)) for n in (sheet.TARGETS, 64))
    assert 0 < len(many) - len(few) < 120


def bitmap(size: int) -> ImageFont.ImageFont:
    return getattr(ImageFont, "load_default_imagefont", ImageFont.load_default)()


SCRIPTS = [
    "猫 {}",
    "кошка {}",
    "🐈‍⬛ {}",
    "قطة {}",
    "\x1b[31m{}\x07",
    "\ud83d {}",
    "a very long target of many words " * 9 + "{}",
]


@pytest.mark.parametrize("names", SCRIPTS, ids=ascii)
@pytest.mark.parametrize("fonts", [drawing.default_font, bitmap], ids=["default", "bitmap"])
def test_any_script(names, fonts):
    drawn(picture(64, 64), reel(targets=14, names=names), (names * 20, "seed 1"), fonts=fonts)


def test_signs_that_a_font_lacks_are_escaped():
    font = drawing.default_font(20)
    assert drawing.printable("cat · ~", font) == "cat · ~"
    assert drawing.printable("猫\x07\ud83d🐈", font) == "\\u732b\\x07\\ud83d\\U0001f408"


def test_the_bitmap_font_is_drawn_at_the_size_asked_for():
    """Pillow before 10.1 has no other."""
    heights = {}
    for size in (12, 24):
        canvas = drawing.Canvas(bitmap)
        canvas.text(0, 0, "Hg", size)
        rows = (np.asarray(canvas.finish(60)) != 255).any(axis=(1, 2)).nonzero()[0]
        heights[size] = rows.max() - rows.min()
    assert 1.6 < heights[24] / heights[12] < 2.5


@pytest.mark.parametrize(("most", "labels"), [(999.0, ["30 to 999", "30"]), (1.0, ["0.030 to 0.999", "0.030"])])
def test_timesteps_can_be_told_apart_on_a_scale_to_1_too(most, labels, monkeypatch):
    """Some flow models are told sigma itself."""
    written, text = [], drawing.Canvas.text

    def heard(self: drawing.Canvas, x: int, y: int, line: str, *rest: object, **options: object) -> int:
        written.append(line)
        return text(self, x, y, line, *rest, **options)

    monkeypatch.setattr(drawing.Canvas, "text", heard)
    low, high = (0.03 * most, 0.999 * most) if most == 1 else (30.0, 999.0)
    grades = np.full(SIZE, low, dtype=np.float32)
    mixed = grades.copy()
    mixed[0] = high
    frames = [Frame(i, 3, 1.0, own, np.ones(SIZE, dtype=bool)) for i, own in enumerate((mixed, grades))]
    sheet.draw(Image.new("RGB", (48, 64)), Reel(frames, frames[0].mask, 0, []), [])
    assert [line for line in written if line in labels] == labels


def test_a_sheet_says_what_its_masks_are(monkeypatch):
    written, text = [], drawing.Canvas.text

    def heard(self: drawing.Canvas, x: int, y: int, line: str, *rest: object, **options: object) -> int:
        written.append(line)
        return text(self, x, y, line, *rest, **options)

    monkeypatch.setattr(drawing.Canvas, "text", heard)
    film = Film((), 4, "painted mask")
    for i in range(3):
        film(seen(i, 3, masks(4, 4) if i < 2 else None))
    sheet.draw(picture(48, 64), film.reel(0), [])
    assert "Painted mask, over the result" in written
    assert "painted mask of step 2 of 3" in written
