"""Beside extensions that give the model the picture in tiles.

Tiled Diffusion is the real one where it is installed, and a stand-in (``neighbours/tiles``); the
ways of others are there as a stand-in only.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pictures
import pytest
from family import HOST
from PIL import Image
from requests_table import BASE, arguments, drawing, in_base64, masked_area
from test_host_neighbours import EXTENSIONS, FOLDER, STAND_INS, VISIBLE, _copy
from webui import PROBE, REPOSITORY, Answer, WebUI

pytestmark = [
    pytest.mark.usefixtures("nothing_left", "quiet"),
    pytest.mark.skipif("neighbours" in HOST.lacks, reason=HOST.lacks.get("neighbours", "")),
]

NAME = "multidiffusion-upscaler-for-automatic1111"
INSTALLED = (EXTENSIONS / NAME).is_dir()
TALL = {**BASE, "width": 192, "height": 288, "steps": 5}
"""A latent of 36 by 24; a tile is one of 16 by 16."""

LEFT, RIGHT = (0, 0, 12, 36), (12, 0, 12, 36)
"""Regions: x, y, width and height in latent pixels."""

WAYS = ("MultiDiffusion", "Mixture of Diffusers")
VARIANTS = {
    "Euler": {},
    "DPM++ 2M": {"sampler_name": "DPM++ 2M"},
    "DPM++ SDE": {"sampler_name": "DPM++ SDE"},
    "Heun": {"sampler_name": "Heun"},
    "DDIM": {"sampler_name": "DDIM"},
    "batch of 2": {"batch_size": 2},
    "AND": {"prompt": "a dog with a red heart AND a cat:0.8"},
    "long": {"prompt": "a cat and a dog" + ", very detailed colorful painting of a quiet summer garden" * 9},
    "img2img": {"init_images": [in_base64(drawing().resize((192, 288)))], "denoising_strength": 0.7},
    "v prediction": {"override_settings": {"sd_model_checkpoint": "tiny-sd1-v"}},
    "XL": {"override_settings": {"sd_model_checkpoint": "tiny-sdxl"}},
    "inpainting": {
        "init_images": [in_base64(drawing().resize((192, 288)))],
        "denoising_strength": 0.7,
        "mask": in_base64(masked_area().resize((192, 288))),
        "mask_blur": 0,
        "override_settings": {"sd_model_checkpoint": "tiny-sd1-inpainting"},
    },
    "hires fix": {"enable_hr": True, "hr_scale": 1.5, "hr_upscaler": "Latent", "denoising_strength": 0.7},
}


def _stand_in(way: str, regions: tuple = (), prompts: tuple = ()) -> dict[str, Any]:
    boxes = [(*box, prompt) for box, prompt in zip(regions, prompts, strict=True)]
    return {"stand-in tiles": {"args": [True, way, json.dumps(boxes)]}}


def _real(way: str, regions: tuple = (), prompts: tuple = (), background: bool = True) -> dict[str, Any]:
    tile, inversion = (16, 16, 4, 2), (False, 10, 1, 1, 64)
    boxes: list[Any] = []
    for (x, y, w, h), prompt in zip(regions, prompts, strict=True):
        boxes += [True, x / 24, y / 36, w / 24, h / 36, prompt, "", "Background", 0.2, 1]
    boxes += [False, 0.4, 0.4, 0.2, 0.2, "", "", "Background", 0.2, -1] * (8 - len(regions))
    args = [True, way, False, True, 192, 288, *tile, "None", 2.0, *inversion, False, bool(regions), background, False]
    return {"tiled diffusion": {"args": [*args, *boxes]}}


KINDS = [
    pytest.param(_stand_in, id="stand-in"),
    pytest.param(
        _real, id="real", marks=pytest.mark.skipif(not INSTALLED, reason=f"{NAME} is not installed")
    ),
]


@pytest.fixture(scope="module")
def beside(folder):
    extensions = {"stand_in_tiles": STAND_INS / "tiles"}
    return {**extensions, **({NAME: _copy(EXTENSIONS / NAME, folder / "real-tiles")} if INSTALLED else {})}


def _started(folder, name, extensions):
    server = WebUI(FOLDER, folder / name, extensions)
    try:
        server.wait()
        server.make(BASE)  # the first request that names a script may otherwise fail
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def host(folder, beside):
    """A WebUI with AsynDM and what cuts pictures into tiles."""
    yield from _started(folder, "tiles", {"asyndm": REPOSITORY, "asyndm_probe": PROBE, **beside})


@pytest.fixture(scope="module")
def without(folder, beside):
    """One without AsynDM."""
    yield from _started(folder, "tiles-alone", beside)


def _make(
    server: WebUI, request: dict[str, Any], theirs: dict[str, Any], settings: Any = "off", messages: tuple = ()
) -> Answer:
    kind = "img2img" if "init_images" in request else "txt2img"
    ours = {} if settings == "off" else {"asyndm": {"args": arguments(settings)}}
    answer = server.make({**request, "alwayson_scripts": {**theirs, **ours}}, kind)
    assert answer.status == 200, answer.info
    assert all(map(pictures.has_content, answer.pictures))
    assert len(answer.messages) == len(messages), answer.messages
    assert all(part in said for part, said in zip(messages, answer.messages, strict=True))
    assert ("AsynDM" in answer.infotext) == (settings != "off" and not messages) or "AsynDM messages" in answer.infotext
    return answer


MADE: dict[tuple, Answer] = {}


def _once(server: WebUI, variant: str, request: dict[str, Any], settings: Any) -> Answer:
    """A picture without tiles, made only once for all that cut it into tiles."""
    key = server.port, variant, settings
    if key not in MADE:
        MADE[key] = _make(server, request, {}, settings)
    return MADE[key]


def _distance(one: Answer, other: Answer) -> float:
    return min(pictures.distance(a, b) for a, b in zip(one.pictures, other.pictures, strict=True))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_both_effects_show(kind, way, variant, host):
    request, tiled = {**TALL, **VARIANTS[variant]}, kind(way)
    neither, ours = _once(host, variant, request, "off"), _once(host, variant, request, None)
    if "init_images" in request:  # the host's VAE encoder draws random numbers that a job leaves
        _make(host, request, tiled)
    theirs, both = _make(host, request, tiled), _make(host, request, tiled, None)
    print(f"both to theirs: {_distance(both, theirs)}, to ours: {_distance(both, ours)}")
    assert _distance(ours, neither) > VISIBLE, "nothing is proved without an effect"
    assert min(_distance(both, theirs), _distance(both, ours)) > VISIBLE
    still = _make(host, request, tiled, {"targets": "cat", "concavity": 0.0})
    assert _distance(still, theirs) == 0
    if variant in ("Euler", "img2img"):
        assert _make(host, request, tiled, None).pictures == both.pictures, "the same request made another picture"
        assert _distance(_make(host, request, {}), neither) == 0, "the host is not as it was"


STATIC = {"targets": "cat", "mask_timing": "static"}


@pytest.mark.parametrize("settings", [{"targets": ""}, STATIC, {"whole_picture": True}], ids=str)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_both_effects_show_with_other_settings(kind, way, settings, host):
    theirs, both = (_make(host, TALL, kind(way), chosen) for chosen in ("off", settings))
    assert _distance(both, theirs) > VISIBLE


@pytest.mark.parametrize("variant", ["Euler", "batch of 2", "DDIM"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_by_hand_lags_in_the_tiles_that_it_covers(kind, way, variant, host):
    request, white = {**TALL, **VARIANTS[variant]}, Image.new("L", (40, 60), 255)
    left = white.copy()
    left.paste(0, (13, 0, 40, 60))
    masks = ({"region": "painted", "mask": in_base64(mask)} for mask in (white, left))
    theirs, whole = (_make(host, request, kind(way), chosen) for chosen in ("off", {"whole_picture": True}))
    all_of_it, third = (_make(host, request, kind(way), mask) for mask in masks)
    assert _distance(all_of_it, whole) == 0
    assert min(_distance(third, theirs), _distance(third, whole)) > VISIBLE
    for one, other in zip(third.pictures, theirs.pictures, strict=True):
        differs = np.abs(pictures.pixels(one) - pictures.pixels(other))
        print(f"left: {differs[:, :64].mean()}, right: {differs[:, 128:].mean()}")
        assert differs[:, :64].mean() > differs[:, 128:].mean()


@pytest.mark.parametrize("variant", ["Euler", "batch of 2", "DDIM", "img2img"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_off_it_is_the_picture_of_a_webui_without_asyndm(kind, way, variant, host, without):
    request = {**TALL, **VARIANTS[variant]}
    made = [_make(server, request, kind(way)) for server in (host, without)]
    assert _distance(*made) == 0


@pytest.mark.parametrize("variant", ["Euler", "DPM++ 2M", "batch of 2", "AND", "long"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_word_of_a_regions_own_prompt_lags_in_that_region(kind, way, variant, host):
    if variant == "long" and kind is _stand_in:
        pytest.skip("the stand-in draws no regions where the host sends prompts of two lengths apart")
    request = {**TALL, "prompt": "a garden", **VARIANTS[variant]}
    if variant == "long":
        request["prompt"] = "a garden" + ", very detailed colorful painting of a quiet summer day" * 9
    if variant == "AND":
        request["prompt"] = "a garden AND a red heart"
    regions = kind(way, (LEFT, RIGHT), ("a cat", "a dog"))
    theirs, both = _make(host, request, regions), _make(host, request, regions, None)
    for one, other in zip(theirs.pictures, both.pictures, strict=True):
        assert np.abs(pictures.pixels(one) - pictures.pixels(other))[:, :96].mean() > VISIBLE
    still = _make(host, request, regions, {"targets": "cat", "concavity": 0.0})
    assert _distance(still, theirs) == 0


@pytest.mark.skipif(not INSTALLED, reason=f"{NAME} is not installed")
@pytest.mark.parametrize("way", WAYS)
def test_only_the_regions_whose_own_prompt_holds_the_word_lag(way, host):
    """Without a background nothing of one region reaches another, but in the VAE."""
    request, fresh = {**TALL, "prompt": "a garden"}, {"targets": "cat", "mask_timing": "fresh"}
    boxes = [(x, y, 12, 18) for x in (0, 12) for y in (0, 18)]
    regions = _real(way, boxes, ("a cat", "a cat", "a dog", "a dog"), background=False)
    theirs, both = _make(host, request, regions), _make(host, request, regions, fresh)
    differs = np.abs(pictures.pixels(theirs.pictures[0]) - pictures.pixels(both.pictures[0]))
    print(f"left: {differs[:, :64].mean()}, right: {differs[:, 128:].mean()}")
    assert differs[:, :64].mean() > VISIBLE
    assert differs[:, 128:].mean() < differs[:, :64].mean() / 3


@pytest.mark.parametrize("way", ["closure"])
def test_a_function_that_encloses_the_original_is_seen_through(way, host):
    theirs, both = (_make(host, TALL, _stand_in(way), chosen) for chosen in ("off", None))
    alike = _make(host, TALL, _stand_in("MultiDiffusion"), None)
    assert _distance(both, theirs) > VISIBLE
    assert _distance(both, alike) == 0


@pytest.mark.parametrize(
    ("variant", "settings"),
    [("Euler", None), ("Euler", STATIC), ("DPM++ SDE", None), ("DDIM", None), ("batch of 2", None), ("img2img", None)],
    ids=["Euler", "Euler, static", "DPM++ SDE", "DDIM", "batch of 2", "img2img"],
)
@pytest.mark.parametrize("way", ["unseen", "strided", "padded", "UNet"])
def test_what_cannot_be_placed_is_the_picture_without_us_and_a_message(way, variant, settings, host):
    request = {**TALL, **VARIANTS[variant]}
    _make(host, request, _stand_in(way))  # see above
    theirs = _make(host, request, _stand_in(way))
    both = _make(host, request, _stand_in(way), settings, messages=("cannot place",))
    assert _distance(both, theirs) == 0


@pytest.mark.skipif(not INSTALLED, reason=f"{NAME} is not installed")
@pytest.mark.parametrize("part", ["noise inversion", "tiled VAE"])
@pytest.mark.parametrize("way", WAYS)
def test_the_extensions_other_parts_work_beside_it(way, part, host):
    tiled = _real(way)
    if part == "noise inversion":
        tiled["tiled diffusion"]["args"][12:14] = [True, 5]
    else:
        tiled["tiled vae"] = {"args": [True, 256, 32, True, True, True, False]}
    request = {**TALL, **VARIANTS["img2img"]}
    _make(host, request, tiled)
    theirs, both = (_make(host, request, tiled, chosen) for chosen in ("off", None))
    assert _distance(both, theirs) > VISIBLE
    assert _distance(_make(host, request, tiled), theirs) == 0


@pytest.mark.skipif(not INSTALLED, reason=f"{NAME} is not installed")
def test_demofusion_samples_in_its_own_way(host):
    start = host.log_size()
    inversion, cosines = (False, 5, 1, 1, 64), (3, 1, 1)
    args = [True, "DemoFusion", False, 16, 8, 2, 2, *inversion, False, True, *cosines, True, 0.85, 0.6, 2, False]
    fusion = {"demofusion": {"args": args}}
    theirs = _make(host, TALL, fusion)
    both = _make(host, TALL, fusion, None, messages=("in its own way",))
    assert _distance(both, theirs) == 0
    assert host.log(start)
