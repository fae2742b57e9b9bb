"""The sheets of what lagged, beside the results and never in their place, and the outline in the
live preview."""

from __future__ import annotations

import base64
import threading
import time

import pictures
import pytest
from family import HOST
from requests_table import BASE, MASK, SMALL, drawing, in_base64, switched_on
from webui_page import opened

pytestmark = pytest.mark.usefixtures("nothing_left", "quiet")

MARK = ", AsynDM sheet: what lagged"
WIDTH = 1280
EDGE = (226, 59, 46)
START = {"init_images": [in_base64(drawing())], "denoising_strength": 0.7}
HIRES = {"enable_hr": True, "hr_scale": 2, "hr_upscaler": "Latent", "denoising_strength": 0.7, **SMALL}
JOBS = {
    "one": (1, "txt2img", {}, {}),
    "wide": (1, "txt2img", {"width": 256, "height": 64}, {}),
    "tall": (1, "txt2img", {"width": 64, "height": 256}, {}),
    "batch size 2, count 2": (4, "txt2img", {"batch_size": 2, "n_iter": 2, **SMALL}, {}),
    "grid": (2, "txt2img", {"n_iter": 2, "save_images": True, **SMALL}, {}),
    "hires fix": (1, "txt2img", HIRES, {}),
    "hires fix, first pass only": (1, "txt2img", HIRES, {"second_pass": "off"}),
    "static": (1, "txt2img", SMALL, {"mask_timing": "static"}),
    "whole picture": (1, "txt2img", SMALL, {"whole_picture": True}),
    "DDIM, AND, editing": (
        1,
        "txt2img",
        {"prompt": "a [cat:bird:0.5] AND a dog", "sampler_name": "DDIM", **SMALL},
        {"targets": "cat, bird, dog"},
    ),
    "Restart": (1, "txt2img", {"sampler_name": "Restart", "steps": 25, **SMALL}, {}),
    "few steps": (1, "txt2img", {"steps": 4, **SMALL}, {}),
    "img2img": (2, "img2img", {**START, "batch_size": 2, **SMALL}, {}),
    "inpainting": (1, "img2img", {**START, **MASK, **SMALL}, {}),
    "inpainting, only masked": (1, "img2img", {**START, **MASK, "inpaint_full_res": True, **SMALL}, {}),
}


def both(host, request, settings=None, kind="txt2img"):
    """The answers with and without the sheets."""
    request, settings = {"subseed": 1, **request}, {"targets": "cat, dog", **(settings or {})}
    if kind == "img2img":
        # The start picture's encoding depends on the random numbers that the job before leaves.
        host.make(BASE)
    bare = host.make(switched_on(request, settings), kind)
    if kind == "img2img":
        host.make(BASE)
    return host.make(switched_on(request, {**settings, "show_masks": True}), kind), bare


@pytest.mark.parametrize("job", JOBS)
def test_the_sheets_follow_the_results(job, host, folder):
    count, kind, changed, settings = JOBS[job]
    answer, bare = both(host, {**BASE, **changed}, settings, kind)
    shown = len(bare.pictures)

    assert (answer.status, bare.status) == (200, 200)
    assert answer.pictures[:shown] == bare.pictures, "the results are not as they were"
    assert answer.messages == bare.messages
    sheets = answer.pictures[shown:]
    assert len(sheets) == count
    assert {pictures.size(png)[0] for png in sheets} == {WIDTH}
    (folder / "sheets").mkdir(exist_ok=True)
    for n, png in enumerate(sheets):
        (folder / "sheets" / f"{job} {n}.png").write_bytes(png)

    info, first = answer.info, answer.info["index_of_first_image"]
    assert first == bare.info["index_of_first_image"] == (job == "grid")
    assert info["infotexts"][:shown] == bare.info["infotexts"]
    assert info["infotexts"][shown:] == [text + MARK for text in bare.info["infotexts"][first:]]
    assert list(map(pictures.infotext, sheets)) == info["infotexts"][shown:]
    for name in ("all_seeds", "all_subseeds", "all_prompts", "all_negative_prompts"):
        assert info[name] == bare.info[name] * 2


def test_each_sheet_is_of_its_own_picture(host):
    """The sheets of a batch are those of each picture alone."""
    settings = {"targets": "cat", "show_masks": True}
    request = {**BASE, **SMALL}
    together = host.make(switched_on({**request, "n_iter": 2}, settings)).pictures[-2:]
    alone = [host.make(switched_on({**request, "seed": seed}, settings)).pictures[-1] for seed in (1, 2)]
    assert all(map(pictures.same_pixels, together, alone))
    assert not pictures.same_pixels(*together)


def test_none_without_asyndm(host, reference):
    """A picture that was made without it has no sheet: nothing lagged."""
    answer = host.make(switched_on(BASE, {"targets": "zebra", "show_masks": True}))
    assert answer.pictures == reference(BASE).result().pictures
    assert len(answer.messages) == 1


def test_many_targets_and_other_scripts(host):
    prompt = "a cat, 猫, кошка, 🐈 , " + ", ".join(f"thing{n}" for n in range(60))
    targets = prompt.removeprefix("a ")
    answer = host.make(switched_on({**BASE, **SMALL, "prompt": prompt}, {"targets": targets, "show_masks": True}))
    assert len(answer.pictures) == 2
    assert answer.messages == []


def test_with_the_hosts_own_masks(host):
    """The host shows these masks after each picture, without an infotext."""
    request = {**BASE, **START, **MASK, **SMALL, "n_iter": 2}
    request["override_settings"] = {"return_mask": True, "return_mask_composite": True, "return_grid": False}
    answer, bare = both(host, request, kind="img2img")
    assert len(bare.pictures) == 6
    assert answer.pictures[:6] == bare.pictures
    one, two = bare.info["infotexts"]
    assert answer.info["infotexts"] == [*[one] * 3, *[two] * 3, one + MARK, two + MARK]
    assert answer.info["all_seeds"] == [1, 1, 1, 2, 2, 2, 1, 2]


@pytest.mark.parametrize("script", ["x/y/z plot", "loopback", "prompt matrix", "sd upscale"])
def test_scripts_do_not_take_sheets_for_results(script, host):
    flags = [True, True, *(False,) * 5, *HOST.plot_numbers, True]
    kind, args = {
        "x/y/z plot": ("txt2img", [1, "1, 2", [], *(0, "", []) * 2, *flags]),
        "loopback": ("img2img", [2, 0.8, "Linear", "None"]),
        "prompt matrix": ("txt2img", [False, False, "positive", "comma", 0]),
        "sd upscale": ("img2img", [None, 16, "Lanczos", 1.1]),
    }[script]
    request = {**BASE, **SMALL, **(START if kind == "img2img" else {}), "script_name": script, "script_args": args}
    answer, bare = both(host, {**request, "prompt": "a cat|with a dog"}, {"targets": "cat"}, kind)
    assert answer.status == 200
    assert answer.pictures == bare.pictures
    (message,) = answer.messages
    assert "not shown" in message


def test_saved_by_the_hosts_settings(host):
    request = {**BASE, **SMALL, "batch_size": 2, "save_images": True}
    kept, gone = ({**request, "override_settings": {"samples_save": save}} for save in (True, False))
    settings = {"targets": "cat", "show_masks": True}

    def files():
        return set(host.folder.rglob("*.png"))

    before = files()
    host.make(switched_on(gone, settings))
    host.make(switched_on({**kept, "save_images": False}, settings))
    assert files() == before
    answer = host.make(switched_on(kept, settings))
    new = sorted(files() - before)
    sheets = [path for path in new if path.stem.endswith("-asyndm")]
    assert len(new) == 4
    assert len(sheets) == 2
    assert all(map(pictures.same_pixels, [path.read_bytes() for path in sheets], answer.pictures[-2:]))
    assert [pictures.infotext(path.read_bytes()) for path in sheets] == answer.info["infotexts"][-2:]


@pytest.mark.parametrize("what", ["interrupt", "skip"])
def test_a_stopped_picture_has_its_sheet(what, host):
    request = {**BASE, **SMALL, "n_iter": 2, "steps": 20}
    host.post("/asyndm-probe/arm", {"what": what, "at": 8})
    answer = host.make(switched_on(request, {"targets": "cat", "show_masks": True}))
    made = 1 if what == "interrupt" else 2
    assert len([text for text in answer.info["infotexts"] if text.endswith(MARK)]) == made
    assert len(answer.pictures) == len(answer.info["infotexts"])


def test_the_calls_of_the_model_are_the_same(host):
    rows = []
    for show in (False, True):
        host.post("/asyndm-probe/arm", {"what": "nothing", "at": 0})
        host.make(switched_on(BASE, {"targets": "cat", "show_masks": show}))
        rows.append(host.get("/asyndm-probe/rows")["rows"])
    assert rows[0] == rows[1]


def previews(host, request, override):
    """The previews that the host shows while it makes a picture."""
    answers, seen = [], {}
    request = {**request, "override_settings": {"live_previews_enable": True, **override}}
    thread = threading.Thread(target=lambda: answers.append(host.make(request)))
    thread.start()
    while thread.is_alive():
        progress = host.get("/sdapi/v1/progress")
        if progress["current_image"] and progress["state"]["sampling_step"] > 1:
            seen[progress["current_image"]] = base64.b64decode(progress["current_image"])
        time.sleep(0.05)
    return answers[0], list(seen.values())


def outlined(png):
    return bool((pictures.pixels(png) == EDGE).all(axis=-1).any())


@pytest.mark.parametrize("grid", [False, True], ids=["first picture", "grid"])
@pytest.mark.parametrize("batch", [1, 3])
def test_the_live_view(batch, grid, host, folder):
    request = switched_on({**BASE, **SMALL, "steps": 60, "batch_size": batch}, {"targets": "cat"})
    options = {"show_progress_every_n_steps": 1, "show_progress_grid": grid}
    plain, usual = previews(host, request, options)
    shown, live = previews(host, request, {**options, "asyndm_live_view": True})
    assert shown.pictures == plain.pictures
    assert usual
    assert not any(map(outlined, usual))
    # In the first steps all lags, and after the last one nothing does: there is no outline then.
    with_outline = [png for png in live if outlined(png)]
    assert len(with_outline) > len(live) / 2
    (folder / f"live view {batch} {grid}.png").write_bytes(with_outline[-1])
    width, height = pictures.size(usual[-1])
    assert {pictures.size(png) for png in with_outline} == {(4 * width, 4 * height)}


def test_the_live_view_of_a_picture_without_asyndm(host):
    _, live = previews(host, {**BASE, "steps": 40}, {"show_progress_every_n_steps": 1, "asyndm_live_view": True})
    assert live
    assert not any(map(outlined, live))


def test_the_page_shows_them_last_and_sends_the_result(browser, host, shots):
    text = host.make(BASE).infotext
    page = opened(browser, host, shots)
    page.paste(text)
    page.open()
    page.element("targets", inside="textarea").fill("cat")
    page.open_advanced()
    page.element("show_masks", inside="input").check()
    page.page.evaluate("window.scrollTo(0, 0)")
    page.generate()
    thumbnails = page.page.locator("#txt2img_gallery .thumbnail-item.thumbnail-small")
    assert thumbnails.count() == 2
    assert page.page.evaluate("selected_gallery_index()") == 0
    assert "AsynDM sheet" not in page.infotext()
    page.shot("sheet-beside-the-result")

    thumbnails.nth(1).click()
    page.page.wait_for_function("() => selected_gallery_index() === 1")
    page.page.wait_for_function("() => document.querySelector('#html_info_txt2img').innerText.includes('AsynDM sheet')")
    page.shot("sheet-selected")
    page.page.locator("#txt2img_send_to_img2img").click()
    page.page.wait_for_selector("#img2img_prompt textarea", state="visible")
    page.page.wait_for_selector("#img2img_image img")
    (width,) = HOST.size(BASE["width"])
    assert page.page.evaluate("document.querySelector('#img2img_image img').naturalWidth") == width
    assert page.element("show_masks", "img2img", "input").is_checked()
    page.page.close()
