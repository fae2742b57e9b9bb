"""The WebUI's own page in Chromium: what a person sees and clicks."""

from __future__ import annotations

import re

import pytest
from requests_table import BASE, switched_on
from webui_page import SETTINGS, opened

from asyndm_lib.settings.presets import PRESETS as PRESET_VALUES

pytestmark = pytest.mark.usefixtures("nothing_left", "quiet")

TABS = ("txt2img", "img2img")
CONTROLS = (
    *("targets", "concavity", "curve", "mask_timing", "threshold", "whole_picture"),
    *("second_pass", "second_concavity"),
)
BY_HAND = ("region", "with_words", "mask", "mask_canvas", "mask_blank", "mask_last")
AT_ONCE = ("targets", "concavity")
PRESETS = ("preset_paper", "preset_gentle", "preset_strong", "preset_whole_picture")
OFF = {
    "enabled": False,
    "targets": "",
    "concavity": 0.5,
    "curve": "quadratic",
    "mask_timing": "lagged",
    "threshold": 1,
    "whole_picture": False,
    "second_pass": "same",
    "second_concavity": 0.5,
}


@pytest.fixture(scope="module")
def infotexts(host):
    """The infotexts of a picture without AsynDM, and of one with every setting."""
    return host.make(BASE).infotext, host.make(switched_on(BASE, SETTINGS)).infotext


def test_the_accordions_are_there_closed_and_off(page):
    for tab in TABS:
        page.open_tab(tab)
        assert page.element("enabled", tab).is_visible()
        assert not page.element("targets", tab).is_visible()
        assert page.values(tab) == OFF
        page.element("enabled", tab).scroll_into_view_if_needed()
        page.shot(f"closed-{tab}")


def test_the_ids_that_others_rely_on(page):
    found = page.page.evaluate("[...document.querySelectorAll('[id*=_asyndm_]')].map(e => e.id).sort()")
    # Of the Settings page.
    found = [name for name in found if not name.startswith(("setting_", "column_"))]
    ids = [f"script_{tab}_asyndm_{name}" for tab in TABS for name in ("enabled", "words", *CONTROLS)]
    others = ("show_masks", "normalisation", "advanced", *PRESETS, *BY_HAND)
    ids += [f"script_{tab}_asyndm_{name}" for tab in TABS for name in others]
    ids += [f"{tab}_asyndm_mark" for tab in TABS]
    own = [f"script_{tab}_asyndm_enabled-{part}" for tab in TABS for part in ("checkbox", "visible-checkbox")]
    assert found == sorted([*ids, *own])


def test_the_box_switches_on_without_opening(page):
    page.switch().click()
    assert page.values()["enabled"]
    assert not page.element("targets").is_visible()


def test_a_picture_by_hand(page, host, infotexts):
    page.paste(infotexts[0])
    page.open()
    page.element("targets", inside="textarea").fill("cat")
    page.element("enabled").scroll_into_view_if_needed()
    page.shot("open", page.element("enabled"))
    page.page.evaluate("window.scrollTo(0, 0)")
    page.generate()
    assert "AsynDM targets: cat" in page.infotext()
    # The cat may be anywhere in a picture of a model of random numbers.
    said = page.messages().inner_text().strip()
    assert re.fullmatch(r'AsynDM slowed "cat" by up to 0\.\d of 6 steps, in \d+ % of the picture \(.*\)\.', said), said
    assert page.messages().is_visible()
    page.shot("picture")
    # The page makes the picture that the API makes.
    expected = host.make(switched_on(BASE))
    assert page.infotext().split() == expected.infotext.replace("CFG scale: 5.0", "CFG scale: 5").split()


def test_what_matters_is_seen_at_once_and_the_rest_on_demand(page):
    page.open()
    for name in (*AT_ONCE, *PRESETS, "advanced"):
        assert page.element(name).is_visible(), name
    rest = [name for name in (*CONTROLS, "show_masks", "normalisation") if name not in AT_ONCE]
    assert [name for name in rest if page.element(name).is_visible()] == []
    tops = [page.element(name).bounding_box()["y"] for name in (PRESETS[0], "targets", "concavity", "advanced")]
    assert tops == sorted(tops)
    page.open_advanced()
    assert [name for name in rest if not page.element(name).is_visible()] == []


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_sets_its_controls_alone(name, page):
    page.open()
    page.element("targets", inside="textarea").fill("cat")
    page.element("preset_whole_picture").click()
    page.element(name).click()
    expected = PRESET_VALUES[name.removeprefix("preset_")]
    page.page.wait_for_timeout(1000)
    assert page.values() == {**OFF, "enabled": True, "targets": "cat", **expected}


def test_an_unknown_word_is_named_under_the_picture(page, infotexts):
    page.paste(infotexts[0])
    page.open()
    page.element("targets", inside="textarea").fill("zebra <b>")
    page.page.evaluate("window.scrollTo(0, 0)")
    page.generate()
    assert '"zebra <b>" not found in the prompt' in page.messages().inner_text()
    assert page.messages().is_visible()
    assert page.page.evaluate("scrollX") == 0
    box = page.messages().bounding_box()
    assert box["y"] + box["height"] < 1400, "out of sight on a page of 1400 pixels"
    assert "AsynDM" not in page.infotext()
    page.shot("unknown-word")


@pytest.mark.parametrize("tab", TABS)
def test_pasting_an_infotext_restores_every_control(tab, page, infotexts):
    page.open_tab(tab)
    page.paste(infotexts[1], tab)
    assert page.values(tab) == {"enabled": True, **SETTINGS}
    assert page.element("targets", tab).is_visible()
    page.element("enabled", tab).scroll_into_view_if_needed()
    page.shot(f"pasted-{tab}")


def test_pasting_an_infotext_without_asyndm_switches_it_off(page, infotexts):
    page.paste(infotexts[1])
    page.paste(infotexts[0])
    # The settings stay for the next time.
    assert page.values() == {**OFF, **SETTINGS, "enabled": False}


def test_sending_to_img2img_takes_the_settings_along(page, infotexts):
    page.paste(infotexts[1])
    page.generate()
    assert "AsynDM whole picture: True" in page.infotext()
    page.page.locator("#txt2img_send_to_img2img").click()
    page.page.wait_for_selector("#img2img_prompt textarea", state="visible")
    page.page.wait_for_timeout(1500)
    assert page.values("img2img") == {"enabled": True, **SETTINGS}


def test_img2img_by_hand(page, infotexts):
    page.paste(infotexts[0])
    page.generate()
    page.page.locator("#txt2img_send_to_img2img").click()
    page.page.wait_for_selector("#img2img_prompt textarea", state="visible")
    page.page.wait_for_timeout(1500)
    page.open("img2img")
    page.element("targets", "img2img", "textarea").fill("cat")
    page.generate("img2img")
    assert "AsynDM targets: cat" in page.infotext("img2img")
    page.shot("img2img")


@pytest.mark.parametrize(
    ("name", "query", "width"), [("dark", "?__theme=dark", 1280), ("narrow", "?__theme=light", 400)]
)
def test_nothing_is_cut_off(name, query, width, browser, host, shots):
    page = opened(browser, host, shots, query, width)
    page.open()
    page.open_advanced()
    page.page.wait_for_timeout(500)
    page.element("enabled").scroll_into_view_if_needed()
    page.shot(f"open-{name}", page.element("enabled"))
    outer = page.element("enabled").bounding_box()
    for control in CONTROLS:
        assert page.element(control).is_visible()
        box = page.element(control).bounding_box()
        assert outer["x"] <= box["x"]
        assert box["x"] + box["width"] <= outer["x"] + outer["width"] + 1
        assert page.element(control).evaluate("e => e.scrollWidth <= e.clientWidth + 1"), f"{control} is cut off"
    page.page.close()
