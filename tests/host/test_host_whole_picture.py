"""The whole picture on one clock: the run is the host's own sampler on a slower schedule, which the
probe gives it."""

import pictures
import pytest
from family import HOST
from materials import HYPERNETWORK, LORA
from requests_table import BASE, MASK, PROMPT, SOFT_INPAINTING, Row, switched_on

pytestmark = pytest.mark.usefixtures("nothing_left", "quiet")

_HYPERNETWORK = "" if "hypernetworks" in HOST.lacks else f" <hypernet:{HYPERNETWORK}:1>"
CASES = {
    "Euler": {"sampler_name": "Euler"},
    "Euler a": {"sampler_name": "Euler a"},
    "DPM++ 2M": {"sampler_name": "DPM++ 2M"},
    "DPM++ 2M, simple": {"sampler_name": "DPM++ 2M", "scheduler": "simple"},
    **{name: {"sampler_name": name} for name in ("Heun", "DPM2", "DPM2 a", "DPM++ 2S a", "LMS", "Restart")},
    # With these many its timesteps, which it rounds, are its model's.
    "LCM": {"sampler_name": "LCM", "steps": 8},
    # With eta the noise of the slower schedule would be another one.
    **{f"{name} eta 0": {"sampler_name": name, "eta": 0.0} for name in ("DPM++ SDE", "DPM++ 2M SDE", "DPM++ 3M SDE")},
    **{name: {"sampler_name": name} for name in ("DDIM", "DDIM CFG++", "PLMS", "UniPC")},
    "DDIM eta 1": {"sampler_name": "DDIM", "eta": 1.0},
    # It changes the layers of the timesteps, too.
    "LoRA": {"prompt": f"{PROMPT} <lora:{LORA}:1>{_HYPERNETWORK}"},
}
INPAINTING = {**MASK, "inpainting_fill": 1, "mask_blur": 8}
START_PICTURES = {
    "img2img": {},
    "inpainting": INPAINTING,
    "inpainting, only masked": {**INPAINTING, "inpaint_full_res": True, "inpaint_full_res_padding": 0},
    "soft inpainting": {**INPAINTING, **SOFT_INPAINTING},
}
PAIRS = [
    *[(checkpoint, case) for checkpoint in ("sd1", "sd1-v") for case in CASES],
    *[(checkpoint, case) for checkpoint in ("sdxl", "sd1-inpainting") for case in ("Euler", "DPM2 a", "DDIM", "UniPC")],
]
PAIRS.remove(("sd1-v", "UniPC"))  # the host rounds UniPC's timesteps where it makes eps of v
CONCAVITY, STEPS = 0.6, 5
"""Values with which the slower timesteps of DDIM are whole numbers, as the host needs them."""


@pytest.fixture
def slower(host):
    """The host's own sampler on the slower schedule."""

    def make(request, kind="txt2img"):
        host.post("/asyndm-probe/slow", {"concavity": CONCAVITY})
        try:
            return host.make(request, kind)
        finally:
            host.post("/asyndm-probe/slow", {"concavity": 0.0})

    return make


@pytest.mark.parametrize(("checkpoint", "case"), PAIRS)
def test_whole_picture(checkpoint, case, host, slower):
    row = Row("", {"steps": STEPS, **CASES[case]}, checkpoint=checkpoint)
    if reason := HOST.lacking(row):
        pytest.skip(reason)
    request = row.off
    usual = host.make(request).pictures[0]
    expected = slower(request).pictures[0]
    answer = host.make(switched_on(request, {"whole_picture": True, "concavity": CONCAVITY}))

    assert answer.messages == []
    near, far = pictures.distance(answer.pictures[0], expected), pictures.distance(usual, expected)
    print(f"to the host on the slower schedule: {near}, to the usual picture: {far}")
    assert near < 0.02 < 0.3 < far


@pytest.mark.parametrize("sampler", ["Euler", "Euler a", "DPM++ 2M"])
@pytest.mark.parametrize("case", START_PICTURES)
def test_whole_picture_from_a_start_picture(case, sampler, host, slower, start_picture):
    """At strength 1 an img2img schedule is the whole one, which the probe can slow."""
    request = {**BASE, "steps": STEPS, "sampler_name": sampler, "init_images": [start_picture]}
    request |= {"denoising_strength": 1.0, **START_PICTURES[case]}
    # The encoding depends on the random numbers that the job before leaves.
    host.make(request, "img2img")
    usual = host.make(request, "img2img").pictures[0]
    expected = slower(request, "img2img").pictures[0]
    on = host.make(switched_on(request, {"whole_picture": True, "concavity": CONCAVITY}), "img2img").pictures[0]

    near, far = pictures.distance(on, expected), pictures.distance(usual, expected)
    print(f"to the host on the slower schedule: {near}, to the usual picture: {far}")
    assert near < 0.02 < 0.3 < far


@pytest.mark.parametrize("sampler", ["Euler", "DDIM"])
@pytest.mark.parametrize("checkpoint", ["tiny-sd1", "tiny-sd1-v"])
def test_interrupted(checkpoint, sampler, host, slower):
    """What the host then shows is its estimate of the finished picture, at every pixel's own noise
    level."""
    overrides = {"sd_model_checkpoint": checkpoint}
    request = {**BASE, "steps": STEPS, "sampler_name": sampler, "override_settings": overrides}
    # The probe sits on the model that is loaded when it is armed.
    usual = host.make(request).pictures[0]
    made = []
    for make, wanted in (
        (slower, request),
        (host.make, switched_on(request, {"whole_picture": True, "concavity": CONCAVITY})),
    ):
        host.post("/asyndm-probe/arm", {"what": "interrupt", "at": 2})
        made += make(wanted).pictures
    assert pictures.distance(*made) < 0.02
    assert pictures.distance(made[0], usual) > 1
