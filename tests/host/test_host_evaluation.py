"""``evaluate --webui`` against the real host."""

from __future__ import annotations

import numpy as np
import pictures
import pytest
from requests_table import SCHEDULES, SMALL, switched_on

from asyndm_lib import cli
from asyndm_lib.errors import AsynDMError
from asyndm_lib.evaluation import scorers
from asyndm_lib.evaluation.gallery import METHODS
from asyndm_lib.evaluation.methods import DM, Method, Way
from asyndm_lib.evaluation.prompts import Prompt
from asyndm_lib.evaluation.webui import WebUI
from asyndm_lib.settings.settings import Settings

pytestmark = pytest.mark.usefixtures("nothing_left", "quiet")

PROMPT = Prompt("a cat and a dog with a red heart", "cat:0.7, red heart:0.3")
WAY = Way("x", "DDIM", "automatic", 6, 5.0, 1.0)
KARAS = "'karas' is no scheduler; did you mean '[kK]arras'" if SCHEDULES else "no sampler 'Euler karas'"
FRESH = Method("fresh", Settings(concavity=0.5, mask_timing="fresh"))


@pytest.mark.parametrize(
    ("method", "settings"),
    [(DM, None), (FRESH, {"targets": PROMPT.targets, "mask_timing": "fresh"})],
    ids=["DM", "AsynDM"],
)
def test_its_pictures_are_the_hosts(host, method, settings):
    webui = WebUI(host.url, SMALL["width"], SMALL["height"])
    assert "tiny-sd1" in webui.check(WAY)["sd_model_checkpoint"]
    assert webui.problem(PROMPT) is None
    assert webui.problem(Prompt("a cat", "cat, zebra")) == "not in it: 'zebra'"
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


@pytest.mark.parametrize(
    ("way", "said"),
    [
        (Way("x", "Eulr a", "automatic", 6, 5.0), "'Eulr a' is no sampler; did you mean 'Euler a'"),
        (Way("x", "Euler", "karas", 6, 5.0), KARAS),
    ],
)
def test_a_sampler_that_it_lacks_is_said_before_the_pictures(host, way, said):
    with pytest.raises(AsynDMError, match=said):
        WebUI(host.url, 64, 64).check(way)


def test_the_command_makes_every_picture_and_keeps_it(host, tmp_path, capsys, monkeypatch):
    mean = scorers.Scorer(lambda: lambda prompt, picture: float(np.asarray(picture).mean()), "mean")
    monkeypatch.setattr(scorers, "available", lambda device, exact, names: ({"mean": mean}, {}))
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("beautiful\na cat and a dog\tcat, dog:0.3\na cat\tzebra\na red heart\n")
    size = [part for side in ("width", "height") for part in (f"--{side}", str(SMALL[side]))]
    arguments = ["evaluate", "--webui", host.url, "--prompts", str(prompts), "--seeds", "2", "--steps", "5", *size]
    assert cli.main([*arguments, "--folder", str(tmp_path / "made")]) == 0
    assert len(list((tmp_path / "made").glob("*/*.png"))) == 2 * 2 * len(METHODS)
    said = capsys.readouterr().out
    assert "model: tiny-sd1" in said
    assert "skipped, 'a cat': not in it: 'zebra'" in said
    assert "skipped, 'beautiful': " in said
    assert "2 of 4 prompts were skipped" in said
    assert cli.main([*arguments, "--folder", str(tmp_path / "made"), "--steps", "6"]) == 2
    assert "sampling steps: 5 there, 6 here" in capsys.readouterr().err
