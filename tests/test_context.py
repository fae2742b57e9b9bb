"""The context curve, on the embedded models with few pictures, steps and levels."""

from __future__ import annotations

import json
import math

import pytest
import torch
from PIL import Image

from asyndm_lib import cli
from asyndm_lib.clock.cells import Cells
from asyndm_lib.evaluation import context, context_plot
from asyndm_lib.evaluation.engine import Batches
from asyndm_lib.evaluation.methods import DM, Way
from asyndm_lib.evaluation.prompts import Prompt
from asyndm_lib.run.step import Seen

FEW = ["--pictures", "3", "--batch", "2", "--steps", "4", "--width", "64", "--height", "64", "--device", "cpu"]


@pytest.fixture(autouse=True)
def _few_levels(monkeypatch):
    monkeypatch.setattr(context, "TIMESTEPS", (700, 400))
    monkeypatch.setattr(context, "LEADS", (100,))


@pytest.fixture
def run(tmp_path, capsys):
    def start(*arguments):
        code = cli.main(["context", "--folder", str(tmp_path), *FEW, *arguments])
        return code, capsys.readouterr()

    return start


@pytest.mark.parametrize("model", ["unet", "transformer"])
def test_every_error_is_in_the_table_the_file_and_the_plot(run, tmp_path, model):
    code, said = run("--model", model)
    assert code == 0
    assert "| 700 | 0 | 1.00 · 1.00 |" in said.out
    content = json.loads((tmp_path / "context.json").read_text())
    errors = {(one["timestep"], one["lead"], one["asked"]): one for one in content["errors"]}
    assert set(errors) == set(context._places(model == "unet"))
    assert all(one["targets"] > 0 and one["rest"] > 0 for one in errors.values())
    asked = [errors[700, 100, name]["targets"] for name in context.ASKED if (700, 100, name) in errors]
    assert len(set(asked)) == len(asked)
    with Image.open(tmp_path / "context.png") as plot:
        assert plot.width == context_plot.WIDTH


def test_a_second_start_goes_on_and_makes_nothing_again(run, tmp_path, monkeypatch):
    first = run()[1].out
    errors = tmp_path / "errors.jsonl"
    lines = errors.read_text().splitlines(keepends=True)
    errors.write_text("".join(lines[:-2]) + lines[-2][:20])  # a stop within a line
    monkeypatch.setattr(Batches, "make", None)
    asked, own = [], context._error
    monkeypatch.setattr(context, "_error", lambda parts, *place: asked.append(place) or own(parts, *place))
    code, said = run()
    assert (code, said.out) == (0, first)
    assert len(asked) == 2
    monkeypatch.setattr(context, "_error", None)
    assert run()[1].out == first


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (["--cfg", "3"], "sampling cfg: 7.0 there, 3.0 here"),
        (["--model", "transformer"], "model: emoji.safetensors there, transformer.safetensors here"),
        (["--pictures", "2"], "prompts: 3 entries there, 2 entries here"),
    ],
)
def test_the_work_of_another_question_is_not_used(run, other, named):
    assert run()[0] == 0
    code, said = run(*other)
    assert code == 2
    assert "holds the work of another question" in said.err
    assert named in said.err
    assert said.err.count("\n") == 1


def test_a_prompt_that_names_nothing_is_skipped(run, tmp_path):
    (tmp_path / "prompts.txt").write_text("beautiful\na cat\na dog\tzebra\n")
    code, said = run("--prompts", str(tmp_path / "prompts.txt"))
    assert code == 0
    assert said.out.splitlines()[:3] == [
        "skipped, 'beautiful': no word of it names a thing",
        "skipped, 'a dog': not in it: 'zebra'",
        "2 of 3 prompts were skipped",
    ]
    assert json.loads((tmp_path / "question.json").read_text())["prompts"] == [["a cat", ""]] * 3
    (tmp_path / "prompts.txt").write_text("beautiful\n")
    code, said = run("--prompts", str(tmp_path / "prompts.txt"))
    assert code == 2
    assert "no prompt has targets" in said.err


def test_the_pictures_are_the_ordinary_ones(run, tmp_path):
    run()
    question = json.loads((tmp_path / "question.json").read_text())
    batches = Batches(context.load(context.EMBEDDED["unet"], None, torch.device("cpu")))
    way = Way("", **question["sampling"])
    ordinary = batches.make([Prompt(*question["prompts"][2])], batches.noise([2], 64, 64), way, DM)
    kept = context.load_file(tmp_path / "picture-0002.safetensors")
    torch.testing.assert_close(kept["latents"], ordinary[0])
    assert 0 < kept["targets"].sum() < kept["targets"].numel()


def test_masks_are_those_of_the_late_maps():
    cells, late = Cells(1, 4, 4, 1, torch.device("cpu")), context.LateMaps()
    for i, place in enumerate([(0, 0), (0, 0), (1, 1), (1, 1)]):
        maps = torch.zeros(1, 1, 2, 2)
        maps[0, 0][place] = 9.0 - i
        late(Seen(i, 4, None, None, maps))
    expected = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    expected[..., 2:, 2:] = True
    assert torch.equal(late.mask(cells), expected)


def test_without_targets_there_is_no_error_in_them():
    error = context._error([_Nothing()], 700, 100, "no caption")
    assert math.isnan(error.targets)
    assert error.rest == 0.5


class _Nothing:
    parts = torch.zeros(4), torch.ones(4)

    def squares(self, *asked):
        return torch.tensor(0.0), torch.tensor(2.0)
