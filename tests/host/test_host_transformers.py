"""Transformers: every family in every kind of job, on and off, against the host without the
extension."""

import os
import subprocess
from pathlib import Path

import pictures
import pytest
from family import FOLDER, HOST
from requests_table import Row, plot, switched_on
from row_check import check
from test_host_pictures import WIDTH
from test_host_xyz import axes
from transformer_rows import HERE, JOBS, PROMPT, WORDS, Transformer, further_rows, network, row, rows
from webui import REPOSITORY, python_of

pytestmark = pytest.mark.skipif(not HERE, reason=f"no transformers are tried on {HOST.name}")


@pytest.fixture(scope="module", autouse=True)
def _checkpoints(host, reference, folder):
    """Small random transformers, made by the WebUI's own Python."""
    maker = [python_of(Path(FOLDER)), "-m", "tiny_transformers", HOST.name.lower().split()[-1]]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", "HF_HUB_OFFLINE": "1"}
    subprocess.run([*maker, FOLDER, folder / "models"], cwd=REPOSITORY / "tests", env=environment, check=True)
    for server in (host, reference.server):
        server.post("/sdapi/v1/refresh-checkpoints")


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.name)
@pytest.mark.usefixtures("nothing_left", "quiet")
def test_row(row: Row, host, reference):
    check(row, host, reference)


@pytest.mark.parametrize("row", further_rows(), ids=lambda row: row.name)
@pytest.mark.usefixtures("nothing_left", "quiet")
def test_further_row(row: Row, host, reference):
    check(row, host, reference)


FAMILIES = pytest.mark.parametrize("family", HERE, ids=lambda family: family.name)


@FAMILIES
@pytest.mark.parametrize("what", ["interrupt", "raise"])
@pytest.mark.usefixtures("nothing_left")
def test_a_job_that_does_not_come_to_its_end_leaves_nothing(what, family: Transformer, host, reference):
    off = row(family, "off", steps=6).off
    before = host.make(off)  # the probe sits on the model that is loaded when it is armed
    host.post("/asyndm-probe/arm", {"what": what, "at": 3})
    answer = host.make(switched_on(off))
    left = host.get("/asyndm-probe/left")  # before another job can hide it
    assert (left["hooks"], left["others"], left["patches"]) == ([], [], [])
    if what == "raise":
        assert (answer.status, answer.info["error"]) == (500, "Accident")
    else:
        assert answer.status == 200
        assert pictures.has_content(answer.pictures[-1])
    assert host.make(off).pictures == before.pictures == reference(off).result().pictures


@FAMILIES
@pytest.mark.usefixtures("nothing_left", "quiet")
def test_where_the_words_stand(family: Transformer, host):
    host.make(row(family, "off").off)
    answer = host.post("/asyndm/v1/tokens", {"prompt": PROMPT, "targets": ", ".join(WORDS)})
    places = [[token["index"] for token in target["occurrences"][0]["tokens"]] for target in answer["targets"]]
    assert places == list(family.words)


@FAMILIES
@pytest.mark.usefixtures("nothing_left", "quiet")
def test_a_lora_of_modulations_acts_on_what_lags_too(family: Transformer, host):
    """Also where what lags is all of the picture."""
    plain, with_lora = (row(family, "off", prompt=prompt).off for prompt in (PROMPT, network(family, "modulations")))
    for settings in (None, {"whole_picture": True}):
        made = [host.make(request).pictures[0] for request in (plain, with_lora)]
        ours = [host.make(switched_on(request, settings)).pictures[0] for request in (plain, with_lora)]
        distances = [pictures.distance(a, b) for a, b in (made, ours, (made[0], ours[0]), (made[1], ours[1]))]
        print(distances)
        assert min(distances) > 0.1


FURTHER = pytest.mark.parametrize("family", [one for one in HERE if one.further], ids=lambda family: family.name)


@FURTHER
@pytest.mark.usefixtures("nothing_left", "quiet")
def test_the_sheet_follows_the_picture(family: Transformer, host, folder):
    """At a size that does not divide into the model's tokens, where the WebUI has such sizes."""
    size = {} if family.lacking("odd size") else JOBS["odd size"]
    asked = row(family, "sheet", **size).off
    shown, bare = (host.make(switched_on(asked, {"targets": "cat, dog", "show_masks": on})) for on in (True, False))
    assert shown.pictures[:-1] == bare.pictures
    assert shown.messages == bare.messages == []
    assert pictures.size(shown.pictures[-1])[0] == WIDTH
    (folder / f"sheet-{family.name}.png").write_bytes(shown.pictures[-1])


@FURTHER
@pytest.mark.usefixtures("nothing_left", "quiet")
def test_plots_and_infotexts(family: Transformer, host):
    """A cell is the picture of its settings, and its infotext makes it again."""
    asked = row(family, "plot", {"targets": "cat"})
    values, other = (0.0, 0.7), {"targets": "cat", "concavity": 0.7}
    answer = host.make(plot(axes(host), asked.on, x=("[AsynDM] Concavity", ", ".join(map(str, values)))))
    assert answer.status == 200, answer.info
    made = [host.make(switched_on(asked.off, {"targets": "cat", "concavity": value})) for value in values]
    for cell, own in zip(answer.pictures[-2:], made, strict=True):
        assert pictures.same_pixels(cell, own.pictures[0])
    text = pictures.infotext(made[1].pictures[0])
    assert "AsynDM concavity: 0.7" in text
    again = host.make({"infotext": text, "override_settings": asked.off["override_settings"]})
    assert again.status == 200, again.info
    assert pictures.same_pixels(again.pictures[0], host.make(switched_on(asked.off, other)).pictures[0])
