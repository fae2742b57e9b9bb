"""Our samplers on a map against the functions that the host really calls, pixel by pixel."""

import draws
import pytest
import test_neo_samplers
import torch
from family import A1111, CLASSIC, FORGE, HOST, NEO, REFORGE
from stand_ins import FLOW, Noise, flow_sigmas
from test_samplers import ANCESTRAL_ON_FLOWS, CASES, CHURN, SETTINGS, Case, latent, on_maps, ways_down

from asyndm_lib.samplers import table as samplers
from asyndm_lib.samplers.neo import table as neo

SAMPLERS = neo.SAMPLERS if HOST is NEO else samplers.CLASSIC if HOST is CLASSIC else samplers.SAMPLERS
WITHIN = CHURN["s_tmin"], CHURN["s_tmax"]
NEOS_OWN = {case.name for case in test_neo_samplers.CASES.values()}
FORGES_OWN = ("sample_heunpp2", "sample_ipndm", "sample_ipndm_v", "sample_deis", "sample_ddpm")
OTHERWISE_LAGGING = ("sample_ipndm", "sample_ipndm_v", "sample_lms")
"""Those of which a pixel that lags goes by other weights: the host's are not for uneven steps."""
SIZE, STEPS, DRAWS = (1, 6, 8), 7, 40


@pytest.mark.parametrize("settings", ["fresh", "whole", "piecewise"])
@pytest.mark.parametrize("name", CASES)
def test_own_function(name, settings, host):
    case = CASES[name]
    if case.name in FORGES_OWN and HOST in (A1111, REFORGE, CLASSIC):
        pytest.skip(f"the k-diffusion of {HOST.name} has no sampler function {case.name}")
    if case.name not in SAMPLERS or (case.name == "ddim_cfgpp" and "sampler DDIM CFG++" in HOST.lacks):
        pytest.skip(f"{HOST.name} has no sampler function {case.name}")
    if HOST is NEO and case.name in NEOS_OWN:
        pytest.skip(f"{HOST.name} has a function {case.name} of its own, of test_host_neo.py")
    if case.name == "sample_heunpp2" and settings != "whole":
        pytest.skip("the levels that HeunPP2 sees ahead are not a lagging pixel's next ones")
    asked_for = SETTINGS[settings]
    if case.name in OTHERWISE_LAGGING:
        if settings != "whole":
            pytest.skip("a pixel that lags goes by other weights than the host's")
        asked_for = {**asked_for, "concavity": 0.0}
    ways, options = ways_down(case, STEPS, torch.float32)
    if case.name == "restart_sampler":
        # The host goes back twice the same way, which a lagging pixel does not.
        ways = [ways[0], ways[1], ways[-1]]
    x = latent(SIZE, torch.float32, 1.0 if case.scaled else ways[0][0])
    out, maps = on_maps(case, x, ways, options, SAMPLERS, **asked_for)
    sequences = torch.unique(maps.flatten(1).T, dim=0)
    # Beyond the steps are what HeunPP2 saw ahead.
    sequences = sequences[:, : sum(len(way) - 1 for way in ways)]
    lengths, ends = [len(way) - 1 for way in ways], [way[-1].item() for way in ways]
    drawn = Noise()
    noise = [drawn.like(x).tolist() for _ in range(DRAWS)]
    churned = HOST in (NEO, CLASSIC) and "s_churn" in case.options
    for sequence in sequences:
        steps = draws.of_churn(*WITHIN, sequence, maps, ways[0]) if churned else None
        asked = {
            "name": case.name,
            "x": x.tolist(),
            "noise": draws.of_host(noise, steps),
            "pixels": [
                [[*levels.tolist(), end] for levels, end in zip(sequence.split(lengths), ends, strict=True)],
            ],
            "options": {**case.options, "brownian": case.brownian or case.name == "sample_ddpm"},
        }
        if case.name == "sample_dpm_fast":
            asked["options"]["n"] = sum(options["orders"])
        (result,) = host.post("/asyndm-probe/sample", asked)
        mask = (maps[: len(sequence)] == sequence.view(-1, 1, 1, 1, 1)).all(dim=0).expand_as(x)
        tolerance = 1e-5 * case.loose
        torch.testing.assert_close(out[mask], torch.tensor(result)[mask], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("settings", ["fresh", "whole", "piecewise"])
@pytest.mark.parametrize("eta", [1.0, 0.4])
@pytest.mark.parametrize("name", ANCESTRAL_ON_FLOWS)
def test_own_function_for_flux(name, eta, settings, host):
    if HOST is not FORGE:
        pytest.skip(f"{HOST.name} has no sampler function {name}_RF")
    sigmas, options = flow_sigmas(STEPS, torch.float32), {"eta": eta, "flow": True}
    x = latent(SIZE, torch.float32)
    out, maps = on_maps(Case(name, options), x, [sigmas], options, SAMPLERS, levels=FLOW, **SETTINGS[settings])
    drawn = Noise()
    noise = [drawn.like(x).tolist() for _ in range(DRAWS)]
    sequences = torch.unique(maps.flatten(1).T, dim=0)
    pixels = [[[*levels.tolist(), 0.0]] for levels in sequences]
    asked = {"name": f"{name}_RF", "x": x.tolist(), "noise": noise, "pixels": pixels, "options": {"eta": eta}}
    results = host.post("/asyndm-probe/sample", asked)
    for sequence, result in zip(sequences, results, strict=True):
        mask = (maps == sequence.view(-1, 1, 1, 1, 1)).all(dim=0).expand_as(x)
        torch.testing.assert_close(out[mask], torch.tensor(result)[mask], rtol=3e-5, atol=3e-5)
