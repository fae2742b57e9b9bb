"""The host's scripts that sample several times or in their own way, where the rows do not
suffice."""

import pytest
from family import HOST
from requests_table import BASE, SMALL, Row, drawing, in_base64, switched_on

pytestmark = pytest.mark.usefixtures("nothing_left", "quiet")

START = {**BASE, **SMALL, "init_images": [in_base64(drawing())], "denoising_strength": 0.7}
SCRIPTS = {
    "loopback": ("img2img", [2, 0.8, "Linear", "None"]),
    "sd upscale": ("img2img", [None, 16, "Lanczos", 1.1]),
    "outpainting mk2": ("img2img", [None, 32, 2, ["left"], 1.0, 0.05]),
    "poor man's outpainting": ("img2img", [32, 2, 1, ["left", "right"]]),
    "prompts from file or textbox": ("txt2img", [False, False, "end", "in the sun\nby night"]),
    "prompt matrix": ("txt2img", [False, False, "positive", "comma", 0]),
    "x/y/z plot": (
        "txt2img",
        [HOST.axes["Steps"], "5, 6", [], *(0, "", []) * 2, False, True, *(False,) * 5, *HOST.plot_numbers, True],
    ),
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_message_is_in_the_answer(script, host):
    """The message is there though the answer is of the script's own making."""
    if reason := HOST.lacking(Row("", {"script_name": script})):
        pytest.skip(reason)
    kind, args = SCRIPTS[script]
    request = {key: value for key, value in START.items() if kind == "img2img" or key in BASE}
    request |= {"script_name": script, "script_args": args, "width": 128 if "outpainting" in script else 64}
    answer = host.make(switched_on(request, {"targets": "cat, zebra"}), kind)
    assert answer.status == 200
    assert len(answer.messages) == 1
    assert '"zebra" not found' in answer.messages[0]
    assert "messages" not in "".join(answer.info["infotexts"])


def test_a_message_does_not_outlive_its_job(host):
    kind, args = SCRIPTS["loopback"]
    request = {**START, "script_name": "loopback", "script_args": args}
    host.make(switched_on(request, {"targets": "cat, zebra"}), kind)
    assert host.make(switched_on(request), kind).messages == []
    assert host.make(request, kind).messages == []


def test_a_script_that_samples_in_its_own_way(host, reference):
    """The "img2img alternative test" does not ask other scripts before it samples: a message says
    so."""
    args = [None, True, False, "a cat", "", True, 4, True, 1.0, 0.0, False]
    request = {**START, "script_name": "img2img alternative test", "script_args": args}
    if reason := HOST.lacking(Row("", request)):
        pytest.skip(reason)
    for server in (reference.server, host):
        server.make(request, "img2img")  # the encoder's random numbers, and the script's own cache
    bare = reference.server.make(request, "img2img")
    on, off = host.make(switched_on(request), "img2img"), host.make(request, "img2img")
    assert (bare.status, on.status, off.status) == (200, 200, 200)
    assert off.pictures == bare.pictures
    assert on.pictures == off.pictures
    assert "AsynDM" not in on.infotext
    assert len(on.messages) == 1
    assert "made without AsynDM" in on.messages[0]
