"""Jobs that do not come to their end leave nothing behind."""

import threading
import time

import pictures
import pytest
from family import CLASSIC, HOST
from requests_table import BASE, switched_on

JOBS = {
    "Euler": {},
    "DDIM": {"sampler_name": "DDIM"},
    "DPM++ 2M, batches": {"sampler_name": "DPM++ 2M", "batch_size": 2, "n_iter": 2},
    "hires fix": {"enable_hr": True, "hr_scale": 2, "hr_upscaler": "Latent", "denoising_strength": 0.7},
}
SETTINGS = {timing: {"targets": "cat", "mask_timing": timing} for timing in ("lagged", "fresh", "static")}


def as_before(host, reference):
    assert host.make(BASE).pictures == reference(BASE).result().pictures


@pytest.mark.parametrize("timing", SETTINGS)
@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("what", ["interrupt", "skip"])
@pytest.mark.usefixtures("nothing_left", "quiet")
def test_stop_at_a_step(what, job, timing, host, reference):
    request = {**BASE, **JOBS[job]}
    whole = host.make(switched_on(request, SETTINGS[timing]))
    host.post("/asyndm-probe/arm", {"what": what, "at": 4})
    answer = host.make(switched_on(request, SETTINGS[timing]))

    assert answer.status == 200
    assert answer.messages == []
    # An interrupt ends the job, a skip only its present batch.
    assert 1 <= len(answer.pictures) <= len(whole.pictures)
    assert answer.pictures[-1] != whole.pictures[-1] or what == "skip"
    assert pictures.has_content(answer.pictures[-1])
    assert host.get("/asyndm-probe/rows")["rows"], "the probe saw no call of the model"
    as_before(host, reference)


@pytest.mark.parametrize("timing", SETTINGS)
@pytest.mark.parametrize("job", JOBS)
@pytest.mark.usefixtures("nothing_left")
def test_an_exception_inside_the_model(job, timing, host, reference):
    request = {**BASE, **JOBS[job]}
    host.make(BASE)  # the probe sits on the model that is loaded when it is armed
    host.post("/asyndm-probe/arm", {"what": "raise", "at": 4})
    answer = host.make(switched_on(request, SETTINGS[timing]))

    assert answer.status == 500
    assert answer.info["error"] == "Accident"
    left = host.get("/asyndm-probe/left")  # before another job can hide it
    assert (left["hooks"], left["others"], left["patches"]) == ([], [], [])
    as_before(host, reference)


@pytest.fixture
def keeping(host):
    """Every job is kept for good."""
    host.post("/asyndm-probe/keep", {"on": True})
    yield
    host.post("/asyndm-probe/keep", {"on": False})


REFUSED = {"targets": "zebra"}


@pytest.mark.parametrize("settings", [SETTINGS["lagged"], REFUSED, None], ids=["on", "refused", "off"])
@pytest.mark.parametrize("at", [2, 8])
@pytest.mark.usefixtures("nothing_left", "keeping")
def test_a_failed_job_that_another_extension_keeps_has_nothing_of_ours(at, settings, host):
    request = {**BASE, "batch_size": 1, "n_iter": 2, "steps": 6}
    if settings is not None:
        request = switched_on(request, {**settings, "show_masks": True})
    host.make(BASE)
    host.post("/asyndm-probe/arm", {"what": "raise", "at": at})
    assert host.make(request).status == 500
    # Nobody tells how sampling without us ended: after a refusal the message stays.
    refusal = {"Job": 1, "_ForInfo": 1} if settings is REFUSED else {}
    assert host.get("/asyndm-probe/left")["objects"] == refusal


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.usefixtures("nothing_left", "quiet", "keeping")
def test_a_job_that_another_extension_keeps_has_the_texts_of_its_infotexts_alone(job, host):
    answer = host.make(switched_on({**BASE, **JOBS[job]}, {"targets": "cat, zebra", "show_masks": True}))
    assert len(answer.messages) == 1
    assert host.get("/asyndm-probe/left")["objects"] == {"OfPictures": 1, "_ForInfo": 1}


@pytest.mark.usefixtures("nothing_left", "quiet")
@pytest.mark.parametrize("button", ["interrupt", "skip"])
def test_the_real_button(button, host, reference):
    answers = []
    request = switched_on({**BASE, "steps": 150})
    thread = threading.Thread(target=lambda: answers.append(host.make(request)))
    thread.start()
    deadline = time.monotonic() + 60
    while host.get("/sdapi/v1/progress?skip_current_image=true")["state"]["sampling_step"] < 3:
        assert time.monotonic() < deadline, "the job did not get to step 3"
        time.sleep(0.05)
    host.post(f"/sdapi/v1/{button}")
    thread.join(60)

    (answer,) = answers
    assert answer.status == 200
    assert len(answer.pictures) == 1
    as_before(host, reference)


@pytest.mark.usefixtures("nothing_left", "quiet")
def test_many_pictures_do_not_pile_up(host):
    """Not one tensor more after five more pictures."""
    request = switched_on(BASE, SETTINGS["fresh"])
    host.make(request)
    before = host.get("/asyndm-probe/left")["tensors"]
    for _ in range(5):
        host.make(request)
    assert host.get("/asyndm-probe/left")["tensors"] == before


@pytest.mark.parametrize(
    ("what", "job"), [*((what, "Euler") for what in ("nothing", "interrupt", "skip", "raise")), ("raise", "DDIM")]
)
@pytest.mark.parametrize("timing", SETTINGS)
def test_what_a_run_was_made_of_is_gone_at_once(timing, what, job, host):
    """No object of ours waits for the garbage collector."""
    host.make(BASE)
    host.post("/asyndm-probe/collector", {"on": False})
    try:
        host.post("/asyndm-probe/arm", {"what": what, "at": 4})
        host.make(switched_on({**BASE, **JOBS[job], "batch_size": 2}, SETTINGS[timing]))
    finally:
        living = host.post("/asyndm-probe/collector", {"on": True})
    gone = {"Run", "ModelCall", "TabledTimesteps", "BatchedTokenMaps", "Walk", "SigmaMap", "Call"}
    assert gone & set(living) == set(), living


@pytest.mark.parametrize(("timing", "passes"), [("lagged", 1), ("fresh", 1), ("static", 2)])
@pytest.mark.usefixtures("nothing_left", "quiet")
def test_the_model_is_not_called_more_often(timing, passes, host):
    """The rows are as many, too: beside the host's own calls the method's cost is in hooks
    alone."""
    rows = []
    for request in (BASE, switched_on(BASE, SETTINGS[timing])):
        host.post("/asyndm-probe/arm", {"what": "nothing", "at": 0})
        host.make(request)
        rows.append(host.get("/asyndm-probe/rows")["rows"])
    off, on = rows
    # Forge Classic leaves the negative prompt out of the first call.
    assert off == [1 if HOST is CLASSIC else 2, *[2] * (BASE["steps"] - 1)]
    assert on == off * passes
