"""The host's attention back ends, live previews and other ways to change what surrounds a run."""

import threading
import time

import pictures
import pytest
from family import HOST
from requests_table import BASE, Row, switched_on
from webui import OPTIONS

pytestmark = pytest.mark.usefixtures("nothing_left", "quiet")

ATTENTIONS = (
    "None",
    "sdp - scaled dot product",
    "sdp-no-mem - scaled dot product without memory efficient attention",
    "sub-quadratic",
    "V1 - original v1",
    "InvokeAI",
    "Doggettx",
)
CHEAP = OPTIONS["show_progress_type"]
PREVIEWS = {
    "cheap": {"show_progress_type": CHEAP},
    "full": {"show_progress_type": "Full"},
    "network": {"show_progress_type": "Approx NN"},
    "small autoencoder": {"show_progress_type": "TAESD"},
    "negative": {"show_progress_type": CHEAP, "live_preview_content": "Negative prompt"},
    "combined": {"show_progress_type": CHEAP, "live_preview_content": "Combined"},
}


@pytest.fixture(scope="module", autouse=True)
def _options_restored(host, reference):
    servers = (host, reference.server)
    before = [server.get("/sdapi/v1/options") for server in servers]
    yield
    for server, options in zip(servers, before, strict=True):
        server.post("/sdapi/v1/options", options)


@pytest.fixture(scope="module")
def with_sdp(host):
    return host.make(switched_on(BASE))


@pytest.mark.skipif("attention options" in HOST.lacks, reason=HOST.lacks.get("attention options", ""))
@pytest.mark.parametrize("attention", ATTENTIONS)
def test_attention(attention, host, reference, with_sdp):
    option = {"cross_attention_optimization": attention}
    for server in (host, reference.server):
        server.post("/sdapi/v1/options", option)
    assert host.get("/sdapi/v1/options")["cross_attention_optimization"] == attention
    bare, on, off = reference.server.make(BASE), host.make(switched_on(BASE)), host.make(BASE)
    assert off.pictures == bare.pictures
    assert on.messages == []
    assert not pictures.same_pixels(on.pictures[0], off.pictures[0])
    # The masks do not depend on how the host computes attention.
    assert pictures.distance(on.pictures[0], with_sdp.pictures[0]) < 2
    for server in (host, reference.server):
        server.post("/sdapi/v1/options", {"cross_attention_optimization": OPTIONS["cross_attention_optimization"]})


@pytest.mark.parametrize("previews", PREVIEWS)
@pytest.mark.parametrize("sampler", ["Euler", "DDIM"])
def test_live_previews(sampler, previews, host):
    if reason := HOST.lacking(Row("", options=PREVIEWS[previews])):
        pytest.skip(reason)
    request = switched_on({**BASE, "sampler_name": sampler, "steps": 25})
    expected = host.make(request)
    before = host.get("/sdapi/v1/options")
    host.post(
        "/sdapi/v1/options", {"live_previews_enable": True, "show_progress_every_n_steps": 1, **PREVIEWS[previews]}
    )
    answers, seen = [], set()
    thread = threading.Thread(target=lambda: answers.append(host.make(request)))
    thread.start()
    while thread.is_alive():
        seen.add(host.get("/sdapi/v1/progress")["current_image"])
        time.sleep(0.02)
    thread.join()
    host.post("/sdapi/v1/options", before)

    assert answers[0].pictures == expected.pictures
    assert len(seen - {None}) > 1, "no previews"


def test_another_checkpoint_and_back(host, reference):
    """The run attaches to the model that is loaded at its call."""
    first = host.make(switched_on(BASE))
    other = {**BASE, "override_settings": {"sd_model_checkpoint": "tiny-sd1-v"}}
    assert host.make(switched_on(other)).pictures != first.pictures
    assert host.make(switched_on(BASE)).pictures == first.pictures
