"""The WebUI's page in Chromium, with AsynDM's controls by name."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from webui import WebUI

CHROMIUM = os.environ.get("ASYNDM_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--no-proxy-server"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
SECONDS = 120

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
"""Settings of ours that are none of the defaults, as :meth:`Page.values` has them."""


class Page:
    """The WebUI's page with AsynDM's controls by name."""

    def __init__(self, page, folder):
        self.page, self._folder = page, folder

    def element(self, name: str, tab: str = "txt2img", inside: str = ""):
        return self.page.locator(f"#script_{tab}_asyndm_{name} {inside}".strip())

    def open(self, tab: str = "txt2img") -> None:
        """Open the accordion by its title, which also switches it on. The box beside the title
        switches it on alone."""
        self.element("enabled", tab, ".label-wrap").first.click()
        self.element("targets", tab).wait_for()

    def open_advanced(self, tab: str = "txt2img") -> None:
        """Open what is closed at first inside the open accordion."""
        self.element("advanced", tab, ".label-wrap").first.click()  # another is inside it
        self.element("curve", tab).wait_for()

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
        """Generate, and wait until the picture is shown."""
        self.page.evaluate("document.querySelectorAll('.html-log').forEach(e => e.dataset.old = e.textContent)")
        self.page.locator(f"#{tab}_generate").click()
        self.page.wait_for_function(
            f"() => {{ const log = document.querySelector('#html_log_{tab}');"
            " return log.textContent.includes('Time taken') && log.textContent !== log.dataset.old; }",
            timeout=SECONDS * 1000,
        )
        self.page.locator(f"#{tab}_gallery img").first.wait_for(timeout=SECONDS * 1000)
        self.page.wait_for_selector(f"#{tab}_interrupt", state="hidden", timeout=SECONDS * 1000)

    def open_canvas(self, tab: str = "txt2img", begin: str = "blank") -> None:
        """Choose to paint, on a blank or on the last picture."""
        if not self.element("region", tab).is_visible():
            self.open_advanced(tab)
        self.element("region", tab, "input[value=painted]").check()
        if not self.element(f"mask_{begin}", tab).is_visible():
            self.element("mask_canvas", tab, ".label-wrap").first.click()
        self.element(f"mask_{begin}", tab).click()
        self.page.wait_for_timeout(1500)  # the canvas takes its picture

    def paint(self, *places: tuple[float, float], tab: str = "txt2img") -> None:
        """Draw one stroke through ``places``, shares of the canvas from its left and top.

        A single place stands for a patch around it.
        """
        canvas = self.element("mask", tab, ":is(canvas[key=interface], .forge-drawing-canvas)").first
        canvas.scroll_into_view_if_needed()
        if len(places) == 1:
            ((x, y),) = places
            places = tuple((x + 0.02 * n - 0.1, y - 0.15 if n % 2 else y + 0.15) for n in range(11))
        box, mouse = canvas.bounding_box(), self.page.mouse
        for n, (x, y) in enumerate(places):
            mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=8)
            if n == 0:
                mouse.down()
        mouse.up()
        self.page.wait_for_timeout(700)

    def messages(self, tab: str = "txt2img"):
        return self.page.locator(f"#html_log_{tab} .comments")

    def infotext(self, tab: str = "txt2img") -> str:
        return self.page.locator(f"#html_info_{tab}").first.inner_text()

    def shot(self, name: str, of=None) -> None:
        (of or self.page).screenshot(path=self._folder / f"{name}.png", timeout=SECONDS * 1000)


def opened(
    browser: Any,
    host: WebUI,
    shots: Path,
    query: str = "",
    width: int = 1280,
    height: int = 1400,
    localization: dict[str, str] | None = None,
) -> Page:
    page = browser.new_page(viewport={"width": width, "height": height})
    page.set_default_timeout(30_000)
    page.route("**/*", lambda route: route.continue_() if _local(route.request.url) else route.abort())
    if localization:  # the host's own, empty one then does not replace it
        given = f"Object.defineProperty(window, 'localization', {{value: {json.dumps(localization)}}})"
        page.add_init_script(given)
    page.goto(host.url + query, wait_until="domcontentloaded", timeout=SECONDS * 1000)
    page.wait_for_selector("#txt2img_generate", state="visible", timeout=SECONDS * 1000)
    page.wait_for_selector("#script_txt2img_asyndm_enabled-visible-checkbox", timeout=SECONDS * 1000)
    page.wait_for_timeout(1500)  # the page's own scripts settle
    return Page(page, shots)


def _local(url: str) -> bool:
    return url.startswith(("data:", "blob:")) or urlparse(url).hostname == "127.0.0.1"
