"""Transformers: every family in every kind of job, on and off, against the host without the
extension."""

import os
import subprocess
from pathlib import Path

import pictures
import pytest
from family import FOLDER, HOST
from requests_table import Row, switched_on
from row_check import check
from transformer_rows import HERE, PROMPT, WORDS, Transformer, row, rows
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
