"""A sampler is one file with all its facts: the tables are made of the rows."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_checkpoints

from asyndm_lib.samplers import table
from asyndm_lib.samplers.neo import table as neo

ROOT = Path(__file__).parents[1]
SAMPLERS = ROOT / "asyndm_lib" / "samplers"
CHOOSING = [
    ROOT / "asyndm_lib" / path
    for path in (
        *("cli.py", "demo/choosing.py", "bench/command.py", "bench/report.py"),
        *("evaluation/engine.py", "evaluation/methods.py", "evaluation/plan.py"),
    )
]
"""Modules that choose a sampler by its label, as a person would."""

TOY = '''
"""Euler steps of any size, as an example."""

from asyndm_lib.samplers.row import Sampler


def toy(run, x, *, size=1.0):
    for step in run:
        denoised = step.predict(x)
        step.callback(x, denoised)
        update = lambda sigma, to: x + size * (x - denoised) / sigma * (to - sigma)
        x = step.per_pixel(update, step.sigma, step.advance())
    return x


ROWS = (Sampler("sample_toy", toy, {"Toy": {}, "Toy half": {"size": 0.5}}, schedule="karras", discards=True),)
'''

SCRIPT = """
import sys
from asyndm_lib import samplers
samplers.__path__.append(sys.argv.pop(1))

from dataclasses import replace
from pathlib import Path

import k_diffusion.sampling
import torch
from asyndm_lib.hosts.standalone.embedded import Embedded, Request
from asyndm_lib.hosts.standalone.ldm_checkpoint import load
from asyndm_lib.samplers.neo import table as neo
from asyndm_lib.samplers.table import LABELS, SAMPLERS
from asyndm_lib.settings.settings import Settings

assert list(LABELS)[-2:] == ["Toy", "Toy half"]
assert SAMPLERS["sample_toy"] is LABELS["Toy"][0]
assert "Toy" not in neo.LABELS

host = Embedded(load(Path(sys.argv[1]), None, torch.device("cpu")))
asked = []
schedule = k_diffusion.sampling.get_sigmas_karras
k_diffusion.sampling.get_sigmas_karras = lambda n, *args, **kwargs: (asked.append(n), schedule(n, *args, **kwargs))[1]
request = Request("a cat", "", (1,), "Toy", "automatic", 5, 4.5, 64, 64)
whole, half, euler = (
    host.sample(replace(request, sampler=label, schedule=kind), Settings(targets="cat"))
    for label, kind in (("Toy", "karras"), ("Toy half", "karras"), ("Euler", "karras"))
)
assert asked == [6, 6, 5], asked
assert torch.equal(host.sample(request, Settings(targets="cat")), whole)
assert asked == [6, 6, 5, 6], "the row's schedule is not the automatic one"
assert all(x.isfinite().all() for x in (whole, half, euler))
assert not torch.equal(whole, half)
assert not torch.equal(whole, host.sample(request, Settings(whole_picture=True, concavity=0.0)))
"""


def test_a_new_file_is_a_sampler_by_its_label(tmp_path):
    samplers = tmp_path / "samplers"
    samplers.mkdir()
    (samplers / "toy.py").write_text(TOY)
    tiny_checkpoints.make(tmp_path, "sd1")
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, str(samplers), str(tmp_path / "tiny-sd1.safetensors")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def modules() -> Iterator[Path]:
    for folder in (ROOT / "asyndm_lib", ROOT / "scripts"):
        yield from (path for path in sorted(folder.rglob("*.py")) if SAMPLERS not in path.parents)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_other_module_asks_for_a_sampler_by_its_name(path):
    names = {*table.SAMPLERS, *table.LABELS, *table.UNFIT, *neo.SAMPLERS, *neo.LABELS}
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    if path in CHOOSING:
        nodes = [part for node in nodes if isinstance(node, ast.Compare) for part in ast.walk(node)]
    named = [node for node in nodes if isinstance(node, ast.Constant) and node.value in names]
    assert not named, f"line {named[0].lineno} names {named[0].value!r}"


ORDER = (
    *("DPM++ 2M", "DPM++ SDE", "DPM++ 2M SDE", "DPM++ 2M SDE Heun", "DPM++ 2S a", "DPM++ 3M SDE", "Euler a", "Euler"),
    *("LMS", "Heun", "DPM2", "DPM2 a", "DPM fast", "Restart", "DDIM", "DDIM CFG++", "PLMS", "UniPC", "LCM"),
    *("HeunPP2", "IPNDM", "IPNDM_V", "DEIS", "DDPM"),
)
NEOS = (
    *("DPM++ 2M", "DPM++ SDE", "DPM++ 2M SDE", "DPM++ 3M SDE", "DPM++ 2s a RF", "Euler a", "Euler", "ER SDE", "LCM"),
    *("LMS", "Heun", "DPM2", "Res Multistep", "Kohaku LoNyu Yog", "Restart", "UniPC", "DDIM", "PLMS"),
    *("DPM++ 2M CFG++", "Euler a CFG++", "Euler CFG++"),
)


def test_labels_are_shown_in_the_webuis_order():
    assert tuple(table.LABELS) == ORDER
    assert tuple(neo.LABELS) == NEOS


def test_only_its_own_label_changes_a_samplers_options():
    changed = {label: options for label, (_, options) in table.LABELS.items() if options}
    assert changed == {"DPM++ 2M SDE Heun": {"solver_type": "heun"}}
    assert not any(options for _, options in neo.LABELS.values())


@pytest.mark.parametrize("samplers", [table.SAMPLERS, neo.SAMPLERS], ids=["webuis", "neo"])
def test_the_facts_of_a_row_agree(samplers):
    for name, sampler in samplers.items():
        assert sampler.name == name
        assert sampler.labels
        assert (sampler.timesteps is not None) == (sampler.levels == "timesteps")
        if sampler.noise in ("Brownian", "default", "unseeded"):
            assert sampler.takes("noise_sampler")
        of = {"linear multistep": "coefficients", "exponential integrator": "coefficients"}
        if sampler.scalars:
            assert sampler.takes(of.get(sampler.scalars, sampler.scalars))
        if sampler.begins_below_all_noise:
            assert sampler.takes("flow")
        assert not (sampler.benched and (sampler.levels != "sigmas" or sampler.scalars))


def test_the_help_does_not_import_k_diffusion():
    """It would take seconds."""
    script = "import sys; from asyndm_lib.cli import parser; parser(); sys.exit('k_diffusion' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 0
