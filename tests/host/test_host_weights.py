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
WAYS = {
    "stand-in": (f"<lora:{LORA}:1>", {"stand-in changing lora": {"args": [True]}}),
    CTL: (f"<lora:{LORA}:0@0,1@0.5,0.2@1>", {}),
    f"{BLOCKS}, start": (f"<lora:{LORA}:1:lbw={HALF}:start=3>", {}),
    f"{BLOCKS}, stop": (f"<lora:{LORA}:1:lbw={HALF}:stop=3>", {}),
}
"""The ways in which a LoRA changes: what is added to the prompt, and the scripts asked for."""


def _param(way: str) -> object:
    real = way.partition(",")[0]
    there = way == "stand-in" or (EXTENSIONS / real).is_dir()
    return pytest.param(way, marks=pytest.mark.skipif(not there, reason=f"{real} is not installed"))


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
    prompt, scripts = WAYS[way]

    def made(rows: int | None, prompt: str = prompt) -> bytes:
        settings = {"lora_functional": functional}
        ours = {} if rows is None else {"asyndm": {"args": arguments({"targets": "cat"})}}
        host.post("/asyndm-probe/ahead", {"rows": rows or 0})
        answer = host.make(
            {
                **BASE,
                "steps": 8,
                "sampler_name": sampler,
                "prompt": BASE["prompt"] + prompt,
                "override_settings": settings,
                "alwayson_scripts": {**scripts, **ours},
            }
        )
        host.post("/asyndm-probe/ahead", {"rows": 64})
        assert answer.status == 200, answer.info
        assert answer.messages == []
        return answer.pictures[0]

    ahead, each = made(64), made(0)
    assert ahead == each, pictures.distance(ahead, each)
    assert ahead != made(None)
    assert pictures.distance(ahead, made(64, f"<lora:{LORA}:1>" if scripts else "")) > 0.5
