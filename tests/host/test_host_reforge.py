"""What reForge has alone: other ways of sampling a model, put in the place of its own for one
picture.

The host keeps a part of them afterwards, so these come last in what is asked of a pair of servers.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from family import HOST, REFORGE
from requests_table import SMALL, Row
from row_check import check
from sampler_rows import STATIC, both

pytestmark = [
    pytest.mark.skipif(HOST is not REFORGE, reason=f"{HOST.name} has no Advanced Model Sampling"),
    pytest.mark.usefixtures("nothing_left", "quiet"),
]


def sampling(mode: str, discrete: str = "eps", zero: bool = False, continuous: str = "eps") -> dict[str, Any]:
    of_continuous, shifts, sizes = [20.0, 0.01, 20.0, 0.01], [2.0, 3.0, 1.73, 1.15, 0.5], [1024, 1024]
    args = [True, mode, discrete, zero, continuous, *of_continuous, *shifts, *sizes]
    return {"alwayson_scripts": {"advanced model sampling for reforge": {"args": args}}}


def rows() -> Iterator[Row]:
    for name, request in {
        "v": sampling("Discrete", "v_prediction"),
        "v, zero terminal SNR": sampling("Discrete", "v_prediction", zero=True),
        "x0": sampling("Discrete", "x0"),
        "LCM": sampling("Discrete", "lcm"),
        "continuous EDM": sampling("Continuous EDM", continuous="v_prediction"),
        "continuous V": sampling("Continuous V"),
    }.items():
        # With a model that was once brought to zero SNR the host fails at all that are not
        # discrete.
        request, checkpoint = {**SMALL, **request}, "sd1-v" if "zero" in name else "sd1"
        for sampler in ("Euler", "Euler a"):
            yield from both(Row(f"{name}, {sampler}", {**request, "sampler_name": sampler}, checkpoint=checkpoint))
        yield from both(Row(f"{name}, static", {**request, "sampler_name": "DPM++ 2M"}, STATIC, checkpoint=checkpoint))
    for mode in ("SD3", "Flux"):
        without = {"unchanged": True, "without": True, "messages": ("predict by",)}
        yield Row(f"{mode}, a flow", {**SMALL, **sampling(mode)}, **without)


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.name)
def test_row(row: Row, host, reference):
    # The first picture of a kind is another than those after it.
    reference(row.off, row.kind, times=2)
    host.make(row.off, row.kind)
    check(row, host, reference)
