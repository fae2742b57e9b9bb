"""Forge Neo: its own sampler functions pixel by pixel, and the rows of its flow models."""

import draws
import pytest
import torch
from family import HOST, NEO
from neo_rows import rows
from requests_table import Row
from row_check import check
from stand_ins import Noise
from test_neo_samplers import CASES, on_maps, start
from test_samplers import SETTINGS

pytestmark = pytest.mark.skipif(HOST is not NEO, reason=f"{HOST.name} has no samplers of Forge Neo")

SIZE, STEPS, DRAWS = (1, 6, 8), 7, 40


@pytest.mark.parametrize("settings", ["fresh", "whole", "piecewise"])
@pytest.mark.parametrize("name", CASES)
def test_own_function(name, settings, host):
    case = CASES[name]
    sigmas = case.sigmas(STEPS, torch.float32)
    x = start(case, SIZE, torch.float32, sigmas)
    out, maps = on_maps(case, x, sigmas, **SETTINGS[settings])
    sequences = torch.unique(maps.flatten(1).T, dim=0)
    drawn, eta = Noise(), case.options.get("eta", 1.0)
    noise = [drawn.like(x).tolist() for _ in range(DRAWS)]
    for sequence in sequences:
        asked = {
            "name": case.name,
            "x": x.tolist(),
            "noise": draws.of_host(noise, draws.of_a_large_eta(eta, sequence, maps, sigmas)),
            "pixels": [[[*sequence.tolist(), sigmas[-1].item()]]],
            "options": {**case.options, "flow": case.flow, "brownian": case.brownian},
        }
        (result,) = host.post("/asyndm-probe/sample", asked)
        mask = (maps == sequence.view(-1, 1, 1, 1, 1)).all(dim=0).expand_as(x)
        # The host's UniPC takes the noise's share of x from a difference of nearly equal numbers.
        tolerance = 1e-5 * case.loose * (30 if case.name == "sample_unipc" else 1)
        torch.testing.assert_close(out[mask], torch.tensor(result)[mask], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.name)
@pytest.mark.usefixtures("nothing_left", "quiet")
def test_row(row: Row, host, reference):
    check(row, host, reference)
