"""Every row of every sampler, on and off, against the host without the extension."""

import pictures
import pytest
from family import HOST
from requests_table import BASE, SAMPLERS, SCHEDULES, Row, switched_on
from row_check import check
from sampler_rows import SDE, rows


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.name)
@pytest.mark.usefixtures("nothing_left", "quiet")
def test_sampler(row: Row, host, reference):
    check(row, host, reference)


def test_every_sampler_has_its_rows(host):
    assert {sampler["name"] for sampler in host.get("/sdapi/v1/samplers")} == {*SAMPLERS, *HOST.refused, *HOST.others}


@pytest.mark.skipif(not SCHEDULES, reason=f"the schedules of {HOST.name} stand in its samplers' names")
def test_every_schedule_type_has_its_rows(host):
    assert {scheduler["name"] for scheduler in host.get("/sdapi/v1/schedulers")} == set(SCHEDULES)


@pytest.mark.usefixtures("nothing_left", "quiet")
@pytest.mark.parametrize("sampler", SDE)
def test_brownian_motion_without_a_seed(sampler, host):
    """With this option the host's own pictures differ from job to job, too."""
    options = {"no_dpmpp_sde_batch_determinism": True}
    if reason := HOST.lacking(Row("", {"sampler_name": sampler}, options=options)):
        pytest.skip(reason)
    answer = host.make(switched_on({**BASE, "sampler_name": sampler, "override_settings": options}))
    assert answer.status == 200
    assert answer.messages == []
    assert pictures.has_content(answer.pictures[0])
