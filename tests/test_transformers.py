"""The hosts' transformers: a timestep for every token, and token maps."""

from __future__ import annotations

import os
import subprocess
from functools import partial
from pathlib import Path

import family_checks
import pytest
import torch
from family_checks import Case, pooled, referenced
from toy_transformers import ToyErnie, ToyFlux, ToyWan

from asyndm_lib import models
from asyndm_lib.bench.flux import Flux
from asyndm_lib.errors import Unsupported
from asyndm_lib.models import ernie_image, flux, wan

FLUX = partial(Case, file=flux, make=ToyFlux, context=(7, 16))
BENCHED = partial(Flux, 2, 2, hidden_size=32, heads=2, axes=(4, 6, 6), context_size=16, pooled_size=12)
CASES = [
    FLUX("Flux", inputs=partial(pooled, guidance=True)),
    FLUX("the bench's Flux", make=BENCHED, inputs=partial(pooled, guidance=True)),
    FLUX("the bench's Flux, fused", make=partial(BENCHED, fused=True), inputs=partial(pooled, guidance=True)),
    Case("Wan", wan, ToyWan, (7, 16), scale=1000, before=lambda words: 0, crossed=True, blocks=lambda m: m.blocks),
    Case("Ernie-Image", ernie_image, ToyErnie, (7, 16), scale=1000, before=lambda words: 0, behind=lambda cells: 7,
         prompt_last=True, blocks=lambda m: m.layers),
]
REFERENCED = referenced(CASES[0])

everywhere = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
sizes = pytest.mark.parametrize("size", [(8, 12), (7, 9)], ids=str)
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)


@everywhere
@sizes
@dtypes
def test_each_token_is_what_the_model_makes_of_it_at_its_own_level(case, size, dtype):
    family_checks.each_token_is_the_plain_run_at_its_level(case, size, dtype)


@everywhere
@sizes
@dtypes
def test_where_nothing_lags_the_bits_are_the_models_own(case, size, dtype):
    family_checks.a_constant_map_changes_no_bit(case, size, dtype)


@everywhere
def test_a_row_that_is_at_one_level_is_the_models_own_call_at_it(case):
    family_checks.a_row_at_one_level_is_the_models_own_call_at_it(case, (7, 9))


@everywhere
def test_rows_of_different_maps_are_as_each_alone(case):
    family_checks.a_row_is_the_same_alone(case, (7, 9))


@everywhere
def test_a_second_call_of_the_model_within_one_has_the_levels_too(case):
    family_checks.a_second_call_within_one_is_as_the_first(case, (7, 9))


@everywhere
@dtypes
def test_the_texts_tokens_keep_the_hosts_own_level(case, dtype):
    family_checks.the_texts_tokens_keep_the_hosts_level(case, (8, 12), dtype)


@everywhere
@sizes
def test_token_maps_are_the_slow_softmax_over_all_tokens(case, size):
    family_checks.token_maps_are_the_slow_softmax(case, size)


@everywhere
def test_no_hook_stays_on_any_path(case):
    family_checks.no_hook_stays(case, (8, 12))


def test_a_reference_picture_behind_the_picture_has_the_hosts_level():
    family_checks.each_token_is_the_plain_run_at_its_level(REFERENCED, (8, 12), torch.float32)
    family_checks.token_maps_are_the_slow_softmax(REFERENCED, (7, 9))


@everywhere
def test_a_family_is_known_by_its_modules(case):
    model = case.model(torch.float32)
    assert models.of(model) is case.file.FAMILY
    name = case.file.FAMILY.parts[-1]
    setattr(model, name, torch.compile(getattr(model, name)))
    with pytest.raises(Unsupported, match="compiled"):
        models.of(model)
    delattr(model, name)
    assert models.find(model) is None


def test_blocks_that_attend_in_a_way_of_their_own_are_met_with_a_message(monkeypatch):
    monkeypatch.delattr("toy_transformers.attention_function")
    with pytest.raises(Unsupported, match="works its attention out in a way"):
        models.of(CASES[0].model(torch.float32))


def test_a_model_that_nunchaku_quantised_is_met_with_a_message():
    model = CASES[0].model(torch.float32)
    model.double_blocks[1].img = type("NunchakuStream", (torch.nn.Module,), {})()
    with pytest.raises(Unsupported, match="Nunchaku"):
        models.of(model)


def test_the_webuis_own_classes_pass_all_of_this():
    """In the WebUI's own Python."""
    webui = Path(os.environ.get("ASYNDM_WEBUI", "/nowhere"))
    host = "neo" if (webui / "backend/nn/lumina.py").is_file() else "forge"
    if not (webui / "backend/nn/flux.py").is_file():
        pytest.skip("ASYNDM_WEBUI names no WebUI that has these models")
    python = os.environ.get("ASYNDM_WEBUI_PYTHON", webui / "venv" / "bin" / "python")
    command = [python, "-W", "ignore", family_checks.__file__, host, webui]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.endswith("all hold\n"), done.stderr
