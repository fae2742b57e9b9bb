"""Masks by hand on a real WebUI: painted on its page, sent to its API, or its own to inpaint."""

from __future__ import annotations

import base64
import re
from dataclasses import replace

import numpy as np
import pictures
import pytest
from family import HOST
from PIL import Image, ImageOps
from requests_table import (
    BASE,
    MASK,
    PAINTED,
    SMALL,
    START,
    Row,
    in_base64,
    masked_area,
    plot,
    switched_on,
    with_arguments,
)
from row_check import check
from test_host_xyz import axes, cells

pytestmark = pytest.mark.usefixtures("nothing_left", "quiet")

DIGEST = re.compile(r"AsynDM mask: ([0-9a-f]{12})")
HIRES = {"enable_hr": True, "hr_scale": 2, "hr_upscaler": "Latent", "denoising_strength": 0.7, **SMALL}
INPAINTING = {**START, **MASK, "inpainting_fill": 1, "mask_blur": 0, "denoising_strength": 0.8}
PART = {"inpaint_full_res": True, "inpaint_full_res_padding": 8}
TO_INPAINT = {"region": "inpaint mask"}


def rows():
    def painted(name: str, settings: dict | None = None, **request: object) -> Row:
        kind = "img2img" if "init_images" in request else "txt2img"
        return Row(f"painted, {name}", request, {**PAINTED, **(settings or {})}, kind=kind)

    def nothing(name: str, said: str, settings: dict, **request: object) -> Row:
        return replace(painted(name, settings, **request), unchanged=True, without=True, messages=(said,))

    for sampler in ("Euler", "DPM++ 2M", "DDIM", "Restart"):
        yield painted(sampler, sampler_name=sampler)
    others = {"mask_timing": "static", "curve": "exponential", "normalisation": "by level"}
    yield painted("with other settings", others)
    yield replace(painted("still", {"concavity": 0.0}, sampler_name="Euler a"), unchanged=True)
    yield painted("batch size 2, count 2", batch_size=2, n_iter=2)
    yield painted("another form", width=128, height=64, prompt="a [cat:dog:0.5] AND of the:0.6")
    yield painted("hires fix, own concavity", {"second_pass": "own concavity", "second_concavity": 0.8}, **HIRES)
    yield painted("hires fix, cut to size", **{**HIRES, "hr_resize_x": 120, "hr_resize_y": 88})
    yield painted("refiner", refiner_checkpoint="tiny-sd1-v", refiner_switch_at=0.5)
    yield replace(painted("sdxl"), checkpoint="sdxl")
    for how, timing in (("union", "lagged"), ("union", "static"), ("intersection", "fresh")):
        both = {"targets": "cat, dog:0.8", "with_words": how, "mask_timing": timing}
        yield painted(f"{how}, {timing}", both)
    yield painted("with tags", prompt="a cat<asyn:cat> and a dog")
    alone = painted("a word that is not in the prompt", {"targets": "zebra"})
    yield replace(alone, messages=('"zebra" not found in the prompt; the mask alone was used',))
    yield painted("img2img", **START, denoising_strength=0.7)
    yield painted("inpainting, only masked", **{**INPAINTING, **PART})
    yield nothing("empty", "The mask is empty", {"mask": in_base64(Image.new("L", (96, 96)))})
    yield nothing("empty, hires fix", "The mask is empty", {"mask": in_base64(Image.new("L", (96, 96)))}, **HIRES)
    yield nothing("nothing painted, with words", "No mask is painted", {"mask": "", "targets": "cat"})
    edge = Image.new("L", (96, 96))
    edge.paste(255, (0, 0, 8, 96))
    part = {**INPAINTING, **PART}
    yield nothing("outside the masked part", "The mask is empty", {"mask": in_base64(edge)}, **part)
    yield nothing("inpaint mask, txt2img", "There is no inpaint mask", TO_INPAINT)
    yield nothing("inpaint mask, img2img", "There is no inpaint mask", TO_INPAINT, **START, denoising_strength=0.7)
    for name, request in (
        ("", {}),
        (", inverted", {"inpainting_mask_invert": 1}),
        (", only masked", PART),
        (", only masked, inverted", {**PART, "inpainting_mask_invert": 1}),
        (", blurred, DDIM", {"mask_blur": 8, "sampler_name": "DDIM"}),
        (", batch", {"batch_size": 2, "n_iter": 2}),
    ):
        yield painted(f"inpaint mask{name}", TO_INPAINT, **{**INPAINTING, **request})


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.name)
def test_row(row: Row, host, reference):
    check(row, host, reference)


@pytest.mark.parametrize("sampler", ["Euler", "DPM++ 2M", "DDIM"])
@pytest.mark.parametrize("passes", [{}, HIRES], ids=["one pass", "hires fix"])
def test_a_mask_of_all_is_the_whole_picture(sampler, passes, host):
    request = {**BASE, "sampler_name": sampler, **passes}
    white = {"region": "painted", "mask": in_base64(Image.new("L", (7, 5), 255))}
    made = [host.make(switched_on(request, settings)).pictures for settings in (white, {"whole_picture": True})]
    assert all(map(pictures.same_pixels, *made))


@pytest.mark.parametrize("inverted", [0, 1])
def test_the_inpaint_mask_is_what_is_painted_to_inpaint(inverted, host):
    # Whole latent pixels: the host rounds those that are covered in half by another filter.
    middle = np.zeros((4, 4), np.uint8)
    middle[1:3, 1:3] = 255
    masked = Image.fromarray(middle).resize(HOST.size(BASE["width"], BASE["height"]), Image.Resampling.NEAREST)
    request = {**BASE, **INPAINTING, "inpainting_mask_invert": inverted, "mask": in_base64(masked)}
    area = ImageOps.invert(masked) if inverted else masked
    host.make(request, "img2img")  # the host's VAE encoder draws random numbers that a job leaves
    by_hand = {"region": "painted", "mask": in_base64(area)}
    made = [host.make(switched_on(request, settings), "img2img") for settings in (TO_INPAINT, by_hand)]
    other = host.make(switched_on(request, {"whole_picture": True}), "img2img")
    assert pictures.same_pixels(made[0].pictures[0], made[1].pictures[0])
    assert not pictures.same_pixels(made[0].pictures[0], other.pictures[0])
    assert "AsynDM region: inpaint mask" in made[0].infotext
    assert DIGEST.search(made[0].infotext)


def test_mask_and_words_together_are_neither_alone(host):
    """Nor is the intersection the union."""
    words = {"targets": "cat", "mask_timing": "fresh"}
    variants = ({}, PAINTED, {**PAINTED, **words}, {**PAINTED, **words, "with_words": "intersection"}, words)
    made = [host.make(switched_on(BASE, settings)).pictures[0] for settings in variants]
    assert len(set(made)) == len(made)


@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,"])
def test_an_object_names_it_and_the_infotext_has_its_digest(prefix, host):
    answer = host.make(with_arguments(BASE, [{"mask": prefix + PAINTED["mask"]}]))
    assert answer.pictures == host.make(switched_on(BASE, PAINTED)).pictures
    assert answer.messages == []
    assert "AsynDM region: painted" in answer.infotext
    assert PAINTED["mask"][:50] not in answer.infotext
    other = host.make(with_arguments(BASE, [{"region": "painted", "mask": in_base64(masked_area().rotate(45))}]))
    assert DIGEST.search(other.infotext)[1] != DIGEST.search(answer.infotext)[1]


def test_an_infotext_cannot_bring_a_mask_back(host):
    infotext = host.make(switched_on(BASE, PAINTED)).infotext
    answer = host.make({"infotext": infotext, **BASE})
    assert answer.pictures == host.make(BASE).pictures
    assert len(answer.messages) == 1
    assert "No mask is painted; paint one, or set Region to words" in answer.messages[0]


WRONG = {
    "no base64": ("a cat!", "Mask must be a PNG picture in base64"),
    "no picture": (base64.b64encode(b"a cat").decode(), "Mask is no PNG picture"),
    "cut off": (PAINTED["mask"][:160], "Mask is "),
    "16 bits": (in_base64(Image.fromarray(np.full((4, 4), 40000, np.uint16))), "eight bits"),
    "too large": (in_base64(Image.new("1", (6000, 6000))), "6000x6000 pixels"),
    "no text": (7, "Mask must be text, not 7"),
    "an object": ({"image": "", "mask": ""}, "Mask must be text"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_mask_is_refused_with_one_line(case, host):
    mask, said = WRONG[case]
    for named in ({"region": "painted", "mask": mask}, {"mask": mask, "enabled": False}):
        answer = host.make(with_arguments(BASE, [named]))
        assert answer.status == 422
        assert said in answer.info["detail"]
        assert "\n" not in answer.info["detail"]
    if isinstance(mask, str):  # in a list it shows while the picture is made
        listed = host.make(switched_on(BASE, {**PAINTED, "mask": mask}))
        assert [said in message for message in listed.messages] == [True]
        assert listed.pictures == host.make(BASE).pictures


def test_the_region_is_an_axis(host):
    request = switched_on({**BASE, **SMALL}, {**PAINTED, "targets": "cat"})
    x, y = ("[AsynDM] Region", "words, painted"), ("[AsynDM] Mask and words", "union, intersection")
    made = cells(host, plot(axes(host), request, x=x, y=y), 4)
    assert not [label for label in axes(host) if label == "[AsynDM] Mask"]
    settings = [(region, how) for how in ("union", "intersection") for region in ("words", "painted")]
    for (png, infotext), (region, how) in zip(made, settings, strict=True):
        own = {"region": region, "with_words": how}
        alone = host.make(switched_on({**BASE, **SMALL}, {**PAINTED, "targets": "cat", **own}))
        assert pictures.same_pixels(png, alone.pictures[0])
        assert ("AsynDM mask: " in infotext) == (own["region"] == "painted")


def test_the_sheet_follows_the_picture(host):
    shown = host.make(switched_on(BASE, {**PAINTED, "show_masks": True}))
    plain = host.make(switched_on(BASE, PAINTED))
    assert shown.pictures[0] == plain.pictures[0]
    assert len(shown.pictures) == 2
    assert shown.infotext == plain.infotext


def test_the_schema_names_it(host):
    properties = host.get("/asyndm/v1/schema")["properties"]
    assert properties["region"]["enum"] == ["words", "painted", "inpaint mask"]
    assert properties["mask"]["maxLength"] == 2**25


# --- The page -------------------------------------------------------------------------------------


def _prepared(page, host, begin: str = "blank"):
    page.paste(host.make(BASE).infotext)
    page.open()
    page.open_canvas(begin=begin)


def test_a_mask_is_painted_on_the_page(page, host):
    _prepared(page, host)
    page.paint((0.25, 0.4))
    page.shot("canvas", page.element("enabled"))
    page.generate()
    assert "AsynDM region: painted" in page.infotext()
    assert DIGEST.search(page.infotext())
    assert "without" not in page.messages().inner_text()
    page.shot("painted")
    first = DIGEST.search(page.infotext())[1]
    page.paint((0.75, 0.5))
    page.generate()
    assert DIGEST.search(page.infotext())[1] != first, "another stroke is another mask"


def test_the_last_picture_is_painted_on(page, host):
    page.paste(host.make({**BASE, "width": 128}).infotext)
    page.generate()
    page.open()
    page.open_canvas(begin="last")
    page.paint((0.5, 0.5))
    page.shot("canvas-last", page.element("enabled"))
    page.generate()
    assert DIGEST.search(page.infotext())
    assert "without" not in page.messages().inner_text()


def test_nothing_painted_is_said_on_the_page(page, host):
    ordinary = host.make(BASE).infotext
    page.paste(ordinary)
    page.open()
    page.open_advanced()
    page.element("region", inside="input[value=painted]").check()
    page.generate()
    assert "No mask is painted" in page.messages().inner_text()
    assert "AsynDM" not in page.infotext()
    page.open_canvas()
    page.generate()
    assert "The mask is empty" in page.messages().inner_text()
    assert "AsynDM" not in page.infotext()


def test_pasting_says_that_a_painted_mask_is_lost(page, host):
    painted = host.make(switched_on(BASE, PAINTED)).infotext
    page.paste(painted)
    lost = page.page.get_by_text("An infotext cannot restore it")
    assert lost.first.is_visible()
    assert DIGEST.search(painted)[1] in lost.first.inner_text()
    assert page.element("region", inside="input:checked").get_attribute("value") == "painted"
    page.shot("lost", page.element("enabled"))
    page.paste(host.make(BASE).infotext)
    page.page.wait_for_timeout(500)
    assert not lost.count() or not lost.first.is_visible()


def test_a_mask_is_painted_in_img2img(page, host):
    page.paste(host.make(BASE).infotext)
    page.generate()
    page.page.locator("#txt2img_send_to_img2img").click()
    page.page.wait_for_selector("#img2img_prompt textarea", state="visible")
    page.page.wait_for_timeout(1500)
    page.open("img2img")
    page.open_canvas("img2img")
    page.paint((0.25, 0.4), tab="img2img")
    page.generate("img2img")
    assert DIGEST.search(page.infotext("img2img"))
    assert "without" not in page.messages("img2img").inner_text()
