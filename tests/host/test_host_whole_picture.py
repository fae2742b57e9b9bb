"""With every pixel on one clock the run is the host's own sampler on a slower schedule, which the probe gives it."""

import pictures
import pytest
from requests_table import BASE, switched_on

pytestmark = pytest.mark.usefixtures("nothing_left", "quiet")

CASES = {
    "Euler": {"sampler_name": "Euler"},
    "Euler a": {"sampler_name": "Euler a"},
    "DPM++ 2M": {"sampler_name": "DPM++ 2M"},
    "DPM++ 2M, simple": {"sampler_name": "DPM++ 2M", "scheduler": "simple"},
    "DDIM": {"sampler_name": "DDIM"},
    "DDIM eta 1": {"sampler_name": "DDIM", "eta": 1.0},
}
CONCAVITY, STEPS = 0.6, 5
"""With these the slower timesteps of DDIM, which must be whole numbers for the host, are."""


@pytest.fixture
def slower(host):
    """The host's own sampler on the slower schedule."""

    def make(request):
        host.post("/asyndm-probe/slow", {"concavity": CONCAVITY})
        try:
            return host.make(request)
        finally:
            host.post("/asyndm-probe/slow", {"concavity": 0.0})

    return make


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("checkpoint", ["tiny-sd1", "tiny-sd1-v"])
def test_whole_picture(checkpoint, case, host, slower):
    request = {**BASE, "steps": STEPS, **CASES[case], "override_settings": {"sd_model_checkpoint": checkpoint}}
    usual = host.make(request).pictures[0]
    expected = slower(request).pictures[0]
    answer = host.make(switched_on(request, {"whole_picture": True, "concavity": CONCAVITY}))

    assert answer.messages == []
    near, far = pictures.distance(answer.pictures[0], expected), pictures.distance(usual, expected)
    print(f"to the host on the slower schedule: {near}, to the usual picture: {far}")
    assert near < 0.02 < 1 < far


@pytest.mark.parametrize("sampler", ["Euler", "DDIM"])
@pytest.mark.parametrize("checkpoint", ["tiny-sd1", "tiny-sd1-v"])
def test_interrupted(checkpoint, sampler, host, slower):
    """What the host then shows is its estimate of the finished picture, at every pixel's own noise level."""
    overrides = {"sd_model_checkpoint": checkpoint}
    request = {**BASE, "steps": STEPS, "sampler_name": sampler, "override_settings": overrides}
    usual = host.make(request).pictures[0]  # the probe sits on the model that is loaded when it is armed
    made = []
    for make, wanted in (
        (slower, request),
        (host.make, switched_on(request, {"whole_picture": True, "concavity": CONCAVITY})),
    ):
        host.post("/asyndm-probe/arm", {"what": "interrupt", "at": 2})
        made += make(wanted).pictures
    assert pictures.distance(*made) < 0.02
    assert pictures.distance(made[0], usual) > 1
