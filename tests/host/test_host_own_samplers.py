"""Our samplers on a map against the functions that the host really calls, pixel by pixel."""

import pytest
import torch
from family import HOST
from stand_ins import Noise
from test_samplers import CASES, SETTINGS, latent, on_maps, ways_down

FORGES_OWN = ("sample_heunpp2", "sample_ipndm", "sample_ipndm_v", "sample_deis", "sample_ddpm")
SIZE, STEPS, DRAWS = (1, 6, 8), 7, 40


@pytest.mark.parametrize("settings", ["fresh", "whole", "piecewise"])
@pytest.mark.parametrize("name", CASES)
def test_own_function(name, settings, host):
    case = CASES[name]
    if case.name in FORGES_OWN and not HOST.forge:
        pytest.skip(f"{HOST.name} has no sampler function {case.name}")
    if case.name == "sample_heunpp2" and settings != "whole":
        pytest.skip("the levels that HeunPP2 sees ahead are not a lagging pixel's next ones")
    ways, options = ways_down(case, STEPS, torch.float32)
    if case.name == "restart_sampler":
        ways = [ways[0], ways[1], ways[-1]]  # the host goes back twice the same way, which a lagging pixel does not
    x = latent(SIZE, torch.float32, 1.0 if case.scaled else ways[0][0])
    out, maps = on_maps(case, x, ways, options, **SETTINGS[settings])
    sequences = torch.unique(maps.flatten(1).T, dim=0)
    # Beyond the steps are what HeunPP2 saw ahead.
    sequences = sequences[:, : sum(len(way) - 1 for way in ways)]
    lengths, ends = [len(way) - 1 for way in ways], [way[-1].item() for way in ways]
    pixels = [
        [[*levels.tolist(), end] for levels, end in zip(sequence.split(lengths), ends, strict=True)]
        for sequence in sequences
    ]
    noise = Noise()
    asked = {
        "name": case.name,
        "x": x.tolist(),
        "noise": [noise.like(x).tolist() for _ in range(DRAWS)],
        "pixels": pixels,
        "options": {**case.options, "brownian": case.brownian or case.name == "sample_ddpm"},
    }
    if case.name == "sample_dpm_fast":
        asked["options"]["n"] = sum(options["orders"])
    results = host.post("/asyndm-probe/sample", asked)
    for sequence, result in zip(sequences, results, strict=True):
        mask = (maps[: len(sequence)] == sequence.view(-1, 1, 1, 1, 1)).all(dim=0).expand_as(x)
        tolerance = 1e-5 * case.loose
        torch.testing.assert_close(out[mask], torch.tensor(result)[mask], rtol=tolerance, atol=tolerance)
