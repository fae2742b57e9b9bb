"""The host's flags and options of where and how it keeps the model, with a pair of hosts for each
flag."""

import pytest
from family import HOST
from materials import HYPERNETWORK, LORA
from reference import Reference
from requests_table import PROMPT, SMALL, Row, drawing, in_base64
from row_check import check

HIRES = {"enable_hr": True, "hr_scale": 2, "hr_upscaler": "Latent", "denoising_strength": 0.7}
START = {"init_images": [in_base64(drawing())], "denoising_strength": 0.7}
STATIC, FRESH = ({"targets": "cat", "mask_timing": timing} for timing in ("static", "fresh"))
PREVIEWS = {"live_previews_enable": True, "show_progress_every_n_steps": 1}
ROWS = (
    Row("Euler, previews", SMALL, options=PREVIEWS),
    Row("DPM++ 2M, static", {"sampler_name": "DPM++ 2M", **SMALL}, STATIC),
    Row("DDIM, batches, previews", {"sampler_name": "DDIM", "eta": 1.0, "n_iter": 2, **SMALL}, FRESH, PREVIEWS),
    Row("AND, hires fix", {"prompt": "a cat AND a dog:0.6", **HIRES, **SMALL}),
    Row("img2img", {**START, **SMALL}, kind="img2img"),
    Row("networks", {"prompt": f"{PROMPT} <lora:{LORA}:1> <hypernet:{HYPERNETWORK}:1>", **SMALL}),
    Row("still", {"sampler_name": "Euler a", **SMALL}, {"targets": "cat", "concavity": 0.0}, unchanged=True),
    Row("v", {"sampler_name": "DDIM", **SMALL}, checkpoint="sd1-v"),
)

pytestmark = pytest.mark.skipif("memory flags" in HOST.lacks, reason=HOST.lacks.get("memory flags", ""))


@pytest.fixture(scope="module", params=["--medvram", "--lowvram", "--opt-channelslast"])
def _pair(request, start):
    with start(request.param) as servers:
        yield servers


@pytest.fixture(scope="module")
def host(_pair):
    return _pair[0]


@pytest.fixture(scope="module")
def reference(_pair):
    return Reference(_pair[1])


@pytest.fixture
def nothing_left(host):
    """Checks afterwards that no patch, no object and no hook of ours is left.

    With --lowvram the host has hooks of its own on the model, and sets them anew on another model.
    """
    before = host.get("/asyndm-probe/left")
    yield
    left = host.get("/asyndm-probe/left")
    for whose in ("hooks", "others"):
        assert set(left[whose]) <= set(before[whose])
    assert (left["patches"], left["objects"]) == ([], {})


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
@pytest.mark.usefixtures("nothing_left", "quiet")
def test_flag(row, host, reference):
    check(row, host, reference)
