"""The WebUI's own page in Chromium: what a person sees and clicks."""

from __future__ import annotations

import os
import shutil
from urllib.parse import urlparse

import pytest
from requests_table import BASE, switched_on

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="the package playwright is not installed (requirements-host.txt)"
)

CHROMIUM = os.environ.get("ASYNDM_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium is installed (ASYNDM_CHROMIUM may name it)"),
    pytest.mark.usefixtures("nothing_left", "quiet"),
]

FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--no-proxy-server"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
TABS = ("txt2img", "img2img")
CONTROLS = (
    *("targets", "concavity", "curve", "mask_timing", "threshold", "whole_picture"),
    *("second_pass", "second_concavity"),
)
SETTINGS = {
    "targets": "cat, dog:0.9",
    "concavity": 0.35,
    "curve": "piecewise linear",
    "mask_timing": "static",
    "threshold": 1.25,
    "whole_picture": True,
    "second_pass": "own concavity",
    "second_concavity": 0.2,
}
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
SECONDS = 120


class Page:
    """The WebUI's page with AsynDM's controls by name."""

    def __init__(self, page, folder):
        self.page, self._folder = page, folder

    def element(self, name: str, tab: str = "txt2img", inside: str = ""):
        return self.page.locator(f"#script_{tab}_asyndm_{name} {inside}".strip())

    def open(self, tab: str = "txt2img") -> None:
        """By its title, which also switches it on; the box beside the title switches it on without opening it."""
        self.element("enabled", tab, ".label-wrap").click()
        self.element("targets", tab).wait_for()

    def switch(self, tab: str = "txt2img"):
        return self.page.locator(f"#script_{tab}_asyndm_enabled-visible-checkbox")

    def open_tab(self, tab: str) -> None:
        self.page.locator("#tabs > .tab-nav button", has_text=tab).first.click()
        self.page.wait_for_selector(f"#{tab}_prompt textarea", state="visible")

    def values(self, tab: str = "txt2img") -> dict:
        return {
            "enabled": self.switch(tab).is_checked(),
            "targets": self.element("targets", tab, "textarea").input_value(),
            "concavity": float(self.element("concavity", tab, "input[type=number]").input_value()),
            "curve": self.element("curve", tab, "input:checked").get_attribute("value"),
            "mask_timing": self.element("mask_timing", tab, "input:checked").get_attribute("value"),
            "threshold": float(self.element("threshold", tab, "input[type=number]").input_value()),
            "whole_picture": self.element("whole_picture", tab, "input[type=checkbox]").is_checked(),
            "second_pass": self.element("second_pass", tab, "input:checked").get_attribute("value"),
            "second_concavity": float(self.element("second_concavity", tab, "input[type=number]").input_value()),
        }

    def paste(self, infotext: str, tab: str = "txt2img") -> None:
        box = self.page.locator(f"#{tab}_prompt textarea")
        box.fill(infotext)
        self.page.locator(f"#{tab}_tools #paste").click()
        # The prompt box then holds the prompt alone.
        prompt = infotext.splitlines()[0]
        self.page.wait_for_function(
            f"value => document.querySelector('#{tab}_prompt textarea').value === value", arg=prompt
        )
        self.page.wait_for_timeout(700)

    def generate(self, tab: str = "txt2img") -> None:
        """Until the picture is shown."""
        self.page.evaluate("document.querySelectorAll('.html-log').forEach(e => e.dataset.old = e.textContent)")
        self.page.locator(f"#{tab}_generate").click()
        self.page.wait_for_function(
            f"() => {{ const log = document.querySelector('#html_log_{tab}');"
            " return log.textContent.includes('Time taken') && log.textContent !== log.dataset.old; }",
            timeout=SECONDS * 1000,
        )
        self.page.locator(f"#{tab}_gallery img").first.wait_for(timeout=SECONDS * 1000)
        self.page.wait_for_selector(f"#{tab}_interrupt", state="hidden", timeout=SECONDS * 1000)

    def messages(self, tab: str = "txt2img"):
        return self.page.locator(f"#html_log_{tab} .comments")

    def infotext(self, tab: str = "txt2img") -> str:
        return self.page.locator(f"#html_info_{tab}").first.inner_text()

    def shot(self, name: str, of=None) -> None:
        (of or self.page).screenshot(path=self._folder / f"{name}.png", timeout=SECONDS * 1000)


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def shots(folder):
    shots = folder / "screenshots"
    shots.mkdir()
    return shots


def opened(browser, host, shots, query: str = "", width: int = 1280, height: int = 1400) -> Page:
    page = browser.new_page(viewport={"width": width, "height": height})
    page.set_default_timeout(30_000)
    page.route("**/*", lambda route: route.continue_() if _local(route.request.url) else route.abort())
    page.goto(host.url + query, wait_until="domcontentloaded", timeout=SECONDS * 1000)
    page.wait_for_selector("#txt2img_generate", state="visible", timeout=SECONDS * 1000)
    page.wait_for_selector("#script_txt2img_asyndm_enabled-visible-checkbox", timeout=SECONDS * 1000)
    page.wait_for_timeout(1500)  # the page's own scripts settle
    return Page(page, shots)


def _local(url: str) -> bool:
    return url.startswith(("data:", "blob:")) or urlparse(url).hostname == "127.0.0.1"


@pytest.fixture
def page(browser, host, shots):
    page = opened(browser, host, shots)
    yield page
    page.page.close()


@pytest.fixture(scope="module")
def infotexts(host):
    """Of a picture without AsynDM, and of one with every setting."""
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
    found = page.page.evaluate("[...document.querySelectorAll('[id*=asyndm]')].map(e => e.id).sort()")
    ids = [f"script_{tab}_asyndm_{name}" for tab in TABS for name in ("enabled", *CONTROLS)]
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
    assert page.messages().inner_text().strip() == ""
    page.shot("picture")
    # The page makes the picture that the API makes.
    expected = host.make(switched_on(BASE))
    assert page.infotext().split() == expected.infotext.replace("CFG scale: 5.0", "CFG scale: 5").split()


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
    assert page.values() == {**OFF, **SETTINGS, "enabled": False}  # the settings stay for the next time


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
    ("name", "query", "width"), [("dark", "?__theme=dark", 1280), ("narrow", "?__theme=light", 420)]
)
def test_nothing_is_cut_off(name, query, width, browser, host, shots):
    page = opened(browser, host, shots, query, width)
    page.open()
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
