"""Every row of every kind of model, on and off, against the host without the extension."""

import os

import pytest
from family import HOST
from model_rows import rows
from requests_table import BASE, Row, switched_on
from row_check import check


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.name)
@pytest.mark.usefixtures("nothing_left", "quiet")
def test_model(row: Row, host, reference):
    check(row, host, reference)


@pytest.fixture
def unclip(host, folder):
    """A checkpoint that says that it is of a kind that cannot be supported."""
    models = folder / "models" / "Stable-diffusion"
    name = models / "unclip"
    config = (models / "tiny-sd1.yaml").read_text()
    assert '"conditioning_key": "crossattn"' in config
    name.with_suffix(".yaml").write_text(config.replace('key": "crossattn"', 'key": "crossattn-adm"'))
    os.link(models / "tiny-sd1.safetensors", name.with_suffix(".safetensors"))
    host.post("/sdapi/v1/refresh-checkpoints")
    yield name.name
    for suffix in (".yaml", ".safetensors"):
        name.with_suffix(suffix).unlink()
    host.post("/sdapi/v1/refresh-checkpoints")


@pytest.mark.skipif("unCLIP" in HOST.lacks, reason=HOST.lacks.get("unCLIP", ""))
@pytest.mark.usefixtures("nothing_left")
def test_a_refiner_that_cannot_go_on(unclip, host, reference):
    """The first steps are made by then: the job ends with the reason."""
    answer = host.make(switched_on({**BASE, "refiner_checkpoint": unclip, "refiner_switch_at": 0.5}))
    assert answer.status == 500
    assert "unCLIP checkpoints are not supported" in answer.info["errors"]
    left = host.get("/asyndm-probe/left")  # before another job can hide it
    assert (left["hooks"], left["others"], left["patches"]) == ([], [], [])
    assert host.make(BASE).pictures == reference(BASE).result().pictures
