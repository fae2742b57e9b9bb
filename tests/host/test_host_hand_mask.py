"""Masks by hand on a real WebUI."""

from __future__ import annotations

import re

import pytest
from requests_table import BASE

pytestmark = pytest.mark.usefixtures("nothing_left", "quiet")

DIGEST = re.compile(r"AsynDM mask: ([0-9a-f]{12})")


def test_a_mask_is_painted_on_the_page(page, host):
    page.paste(host.make(BASE).infotext)
    page.open()
    page.open_canvas()
    page.paint((0.2, 0.2), (0.5, 0.5))
    page.shot("canvas", page.element("enabled"))
    page.generate()
    assert "AsynDM region: painted" in page.infotext()
    assert DIGEST.search(page.infotext())
    assert page.messages().inner_text().strip() == ""
    page.open_canvas(begin="last")
    page.paint((0.2, 0.2), (0.5, 0.5))
    page.shot("canvas-last", page.element("enabled"))
