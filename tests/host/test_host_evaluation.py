"""``evaluate --webui`` against the real host."""

from __future__ import annotations

import numpy as np
import pictures
import pytest
from requests_table import SMALL, switched_on

from asyndm_lib import cli
from asyndm_lib.evaluation.gallery import METHODS
from asyndm_lib.evaluation.methods import DM, Method, Way
from asyndm_lib.evaluation.prompts import Prompt
from asyndm_lib.evaluation.webui import WebUI
from asyndm_lib.settings.settings import Settings

pytestmark = pytest.mark.usefixtures("nothing_left", "quiet")

PROMPT = Prompt("a cat and a dog with a red heart", "cat:0.7, red heart:0.3")
WAY = Way("x", "DDIM", "automatic", 6, 5.0, 1.0)
FRESH = Method("fresh", Settings(concavity=0.5, mask_timing="fresh"))


@pytest.mark.parametrize(
    ("method", "settings"),
    [(DM, None), (FRESH, {"targets": PROMPT.targets, "mask_timing": "fresh"})],
    ids=["DM", "AsynDM"],
)
def test_its_pictures_are_the_hosts(host, method, settings):
    webui = WebUI(host.url, SMALL["width"], SMALL["height"])
    assert "tiny-sd1" in webui.check()
    made = webui.picture(PROMPT, WAY, method, 5)
    request = {
        **SMALL,
        "prompt": PROMPT.text,
        "seed": 5,
        "steps": 6,
        "cfg_scale": 5.0,
        "sampler_name": "DDIM",
        "eta": 1.0,
    }
    asked = host.make(request if settings is None else switched_on(request, settings))
    assert np.array_equal(pictures.pixels(asked.pictures[0]), np.asarray(made))


def test_the_command_makes_every_picture_and_keeps_it(host, tmp_path, capsys):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a cat and a dog\tcat, dog:0.3\na red heart\n")
    size = [part for side in ("width", "height") for part in (f"--{side}", str(SMALL[side]))]
    arguments = ["evaluate", "--webui", host.url, "--prompts", str(prompts), "--seeds", "2", "--steps", "5", *size]
    # Whether they can be scored depends on the machine.
    cli.main([*arguments, "--folder", str(tmp_path / "made")])
    assert len(list((tmp_path / "made").glob("*/*.png"))) == 2 * 2 * len(METHODS)
    assert "model: tiny-sd1" in capsys.readouterr().out
