"""Weights that the host's options keep in eight bits. On a CPU it then computes in bfloat16."""

import pytest
from family import HOST
from reference import Reference
from row_check import check
from test_host_memory import ROWS

MODES = {
    "fp8": {"fp8_storage": "Enable", "cache_fp16_weight": False},
    "fp8, LoRA in fp16": {"fp8_storage": "Enable", "cache_fp16_weight": True},
}

pytestmark = pytest.mark.skipif("option fp8_storage" in HOST.lacks, reason=HOST.lacks.get("option fp8_storage", ""))


@pytest.fixture(scope="module", params=MODES)
def reference(request, _servers):
    before = [server.get("/sdapi/v1/options") for server in _servers]
    for server in _servers:
        server.post("/sdapi/v1/options", MODES[request.param])
    yield Reference(_servers[1])
    for server, options in zip(_servers, before, strict=True):
        server.post("/sdapi/v1/options", options)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
@pytest.mark.usefixtures("nothing_left", "quiet")
def test_fp8(row, host, reference):
    check(row, host, reference)
    assert "FP8 weight: Enable" in reference(row.off, row.kind).result().infotext
