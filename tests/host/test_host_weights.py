"""Tables made ahead beside LoRAs whose weight changes in the middle of a picture."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pictures
import pytest
from family import A1111, FOLDER, HOST
from materials import LORA
from requests_table import BASE, arguments
from webui import PROBE, REPOSITORY, WebUI

pytestmark = pytest.mark.skipif(HOST is not A1111, reason="the stand-in is for AUTOMATIC1111's LoRAs")

STAND_IN = Path(__file__).with_name("neighbours") / "changing_lora"
EXTENSIONS = Path(os.environ.get("ASYNDM_WEBUI_EXTENSIONS") or Path(FOLDER or "") / "extensions")
CTL, BLOCKS = "sd-webui-loractl", "sd-webui-lora-block-weight"
HALF = ",".join(["1"] * 9 + ["0.5"] * 8)
ROUNDING = 0.01
"""The mean difference of the pixels, in levels, that rounding stays below. A stale table is told by
a message."""
STILL = f"<lora:{LORA}:1>"
HALVES = f"<lora:{LORA}:1:lbw={HALF}>"
CHANGING = {"stand-in changing lora": {"args": [True]}}
WAYS = {
    "stand-in": (STILL, CHANGING, STILL),
    CTL: (f"<lora:{LORA}:0@0,1@0.5,0.2@1>", {}, STILL),
    f"{BLOCKS}, start": (f"<lora:{LORA}:1:lbw={HALF}:start=3>", {}, HALVES),
    f"{BLOCKS}, stop": (f"<lora:{LORA}:1:lbw={HALF}:stop=3>", {}, HALVES),
}
"""The ways in which a LoRA changes: what is added to the prompt, the scripts asked for, and what is
added to the prompt for a LoRA that stays as it is."""


def _param(way: str) -> object:
    real = way.partition(",")[0]
    lacking = f"{CTL} takes the weights of LoRAs for itself" if way == "stand-in" else f"{real} is not installed"
    skipped = (EXTENSIONS / CTL).is_dir() if way == "stand-in" else not (EXTENSIONS / real).is_dir()
    return pytest.param(way, marks=pytest.mark.skipif(skipped, reason=lacking))


@pytest.fixture(scope="module")
def host(folder):
    there = [name for name in (CTL, BLOCKS) if (EXTENSIONS / name).is_dir()]
    real = {name: Path(shutil.copytree(EXTENSIONS / name, folder / name)) for name in there}
    beside = {"stand_in_changing_lora": STAND_IN, **real}
    server = WebUI(Path(FOLDER), folder / "weights", {"asyndm": REPOSITORY, "asyndm_probe": PROBE, **beside})
    try:
        server.wait()
        server.make(BASE)
        yield server
    finally:
        server.stop()


@pytest.mark.usefixtures("nothing_left", "quiet")
@pytest.mark.parametrize("sampler", ["Euler", "DPM++ SDE"])
@pytest.mark.parametrize("functional", [False, True])
@pytest.mark.parametrize("way", [_param(way) for way in WAYS])
def test_a_table_made_ahead_knows_the_weights_of_each_step(way, functional, sampler, host):
    changing, scripts, still = WAYS[way]

    def made(rows: int | None, lora: str = changing, scripts: dict = scripts) -> bytes:
        settings = {"lora_functional": functional}
        ours = {} if rows is None else {"asyndm": {"args": arguments({"targets": "cat"})}}
        host.post("/asyndm-probe/ahead", {"rows": rows or 0})
        answer = host.make(
            {
                **BASE,
                "steps": 8,
                "sampler_name": sampler,
                "prompt": BASE["prompt"] + lora,
                "override_settings": settings,
                "alwayson_scripts": {**scripts, **ours},
            }
        )
        host.post("/asyndm-probe/ahead", {"rows": 64})
        assert answer.status == 200, answer.info
        assert answer.messages == []
        return answer.pictures[0]

    ahead, each = made(64), made(0)
    away = pictures.distance(ahead, each)
    print(f"away: {away}")
    # Beside the weights nothing is made ahead. Else tables of another height round otherwise.
    assert away == 0 if functional else away < ROUNDING
    assert ahead != made(None)
    assert pictures.distance(ahead, made(64, still, {})) > 0.5, "nothing is proved where nothing changes"
