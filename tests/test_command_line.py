"""The command line: a table of what is typed and what comes of it, names as people type them, and
what is asked before the work."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import command_lines
import pytest
from PIL import Image

from asyndm_lib import __version__, cli
from asyndm_lib.demo import outputs, program
from asyndm_lib.errors import AsynDMError
from asyndm_lib.evaluation import manifest, scorers
from asyndm_lib.evaluation.methods import Method
from asyndm_lib.evaluation.prompts import Prompt
from asyndm_lib.evaluation.regions import Control
from asyndm_lib.samplers.labels import NEO, WEBUIS
from asyndm_lib.samplers.neo.table import LABELS as NEO_LABELS
from asyndm_lib.samplers.table import LABELS
from asyndm_lib.settings.settings import Settings

ROOT = Path(__file__).parent.parent
ROWS = command_lines.read()


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    return command_lines.prepare(tmp_path_factory.mktemp("lines"))


def test_the_table_is_long_and_names_every_program():
    assert len({row.input for row in ROWS}) == len(ROWS) >= 150
    commands = {row.input.split()[0] for row in ROWS}
    assert commands == {
        "asyndm",
        "demo.choosing",
        "demo.training",
        "evaluation.counter_training",
        "evaluation.lead",
        "evaluation.localisation",
        "evaluation.seed_sheet",
        "evaluation.where",
    }


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.input[:90])
def test_what_is_typed_has_its_exit_code_and_first_line(row, places, monkeypatch):
    monkeypatch.setattr(scorers, "available", lambda device, exact, names: ({}, {"CLIPScore": "no weights"}))
    found = command_lines.outcome(row.input, places)
    assert found.row(row.input, places) == row
    assert "Traceback" not in found.err
    if found.code:
        assert found.code == program.WRONG
        assert found.err.count("\n") == 1
        assert found.err.endswith("\n")


def run(*words: str, **options: object) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1", **options.pop("env", {})}
    return subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, encoding="utf-8",
                          env=environment, **options)


WITHOUT = "import sys; sys.modules.update(dict.fromkeys({names!r})); import runpy; sys.argv[1:] = {words!r}; " \
    "runpy.run_module('asyndm_lib', run_name='__main__')"  # fmt: skip
HEAVY = ("torch", "numpy", "scipy", "transformers", "k_diffusion", "ldm", "safetensors", "PIL", "tqdm")


@pytest.mark.parametrize(
    "words",
    [["--help"], ["--version"], *([name, "--help"] for name in ("generate", "evaluate", "context", "bench"))],
    ids=" ".join,
)
def test_help_needs_no_torch(words):
    found = run("-c", WITHOUT.format(names=HEAVY, words=words))
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout.startswith("usage: asyndm" if "--help" in words else f"asyndm {__version__}")
    assert "%%" not in found.stdout


def test_a_wrong_option_is_said_without_torch():
    found = run("-c", WITHOUT.format(names=HEAVY, words=["generate", "a cat", "--sampler", "Oiler"]))
    assert found.returncode == 2
    assert "did you mean 'Euler'?" in found.stderr


def test_install_model_needs_neither_torch_nor_k_diffusion(tmp_path):
    (tmp_path / "webui.py").touch()
    found = run("-c", WITHOUT.format(names=HEAVY, words=["install-model", str(tmp_path)]))
    assert (found.returncode, found.stderr) == (0, "")
    assert (tmp_path / "models" / "Stable-diffusion" / "asyndm-emoji.safetensors").stat().st_size > 10**7


def test_a_missing_package_is_one_line():
    found = run("-c", WITHOUT.format(names=("torch",), words=["generate", "a cat"]))
    assert found.returncode == 2
    assert found.stderr.count("\n") == 1
    assert "the package 'torch' is missing; `make demo` installs" in found.stderr


def test_a_console_without_a_sign_shows_a_question_mark():
    found = run("-m", "asyndm_lib", "evaluate", "--table", env={"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
    assert found.returncode == 0
    assert " ? " in found.stdout


# The wrapper


def raising(error: BaseException):
    def work() -> None:
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (AsynDMError("one\n  line"), 2, "asyndm: error: one line\n"),
        (KeyboardInterrupt(), 130, "\nasyndm: interrupted\n"),
        (FileNotFoundError(2, "No such file", "a.txt"), 2, "asyndm: error: a.txt: No such file\n"),
        (OSError("disk on fire"), 2, "asyndm: error: a file: disk on fire\n"),
        (
            ModuleNotFoundError("x", name="resvg_py"),
            2,
            "asyndm: error: the package 'resvg_py' is missing; install it with pip\n",
        ),
        (
            type("OutOfMemoryError", (RuntimeError,), {})("CUDA"),
            2,
            "asyndm: error: the memory is not enough; make fewer or smaller pictures at once\n",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_ends_a_program(error, code, said, capsys):
    assert program.run(raising(error)) == code
    assert capsys.readouterr().err == said


def test_a_fault_of_ours_keeps_its_traceback_and_says_whose_it_is(capsys):
    assert program.run(raising(ZeroDivisionError("no"))) == program.FAULT
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert said.splitlines()[-1].startswith("asyndm: error: a fault in AsynDM itself (ZeroDivisionError: no")


def test_a_reader_that_has_seen_enough_is_no_error():
    found = run("-c", "import sys; from asyndm_lib import cli; sys.stdout.close = lambda: None\n"
                "import subprocess\n"
                "head = subprocess.Popen([sys.executable, '-c', ''], stdin=subprocess.PIPE)\n"
                "head.wait()\n"
                "import os; os.dup2(head.stdin.fileno(), 1)\n"
                "sys.exit(cli.main(['evaluate', '--table']))")  # fmt: skip
    assert (found.returncode, found.stderr) == (0, "")


# Names


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        *((text, "Euler a") for text in ("euler a", "EULER_A", "euler-a", "k_euler_a", "euler_ancestral", "Euler  A")),
        *((text, "DPM++ 2M") for text in ("dpmpp_2m", "DPM++ 2m", "k_dpmpp_2m", "sample_dpmpp_2m", "dpm++2m")),
        *((text, "DPM++ 2M SDE Heun") for text in ("dpmpp_2m_sde_heun", "dpm++ 2m sde heun")),
        *((text, "DPM++ 2S a") for text in ("dpmpp_2s_ancestral", "DPM++ 2S a")),
        *((text, "UniPC") for text in ("uni_pc", "unipc")),
        *((text, "DDIM") for text in ("ddim", " DDIM ")),
        *((label, label) for label in cli.SAMPLERS),
    ],
)
def test_a_sampler_is_known_by_what_people_type(typed, meant):
    options = cli.parser().parse_args(["generate", "a cat", "--sampler", typed])
    assert (options.sampler, options.schedule_behind) == (meant, None)


@pytest.mark.parametrize("sampler", ["DPM++ 2M", "Euler", "DPM++ 2M SDE Heun"])
@pytest.mark.parametrize("schedule", ["Karras", "exponential", "Polyexponential"])
def test_the_schedule_may_stand_behind_the_sampler(sampler, schedule):
    for text in (f"{sampler} {schedule}", f"{sampler}_{schedule}".lower().replace(" ", "_")):
        options = cli.parser().parse_args(["generate", "a cat", "--sampler", text])
        assert (options.sampler, options.schedule_behind) == (sampler, schedule.lower())
        cli._join_schedule(options)
        assert options.schedule == schedule.lower()


def test_no_two_samplers_are_typed_alike():
    assert len({program.plain(label) for label in cli.SAMPLERS}) == len(cli.SAMPLERS)


def test_the_labels_that_are_known_without_torch_are_those_of_the_samplers():
    assert tuple(LABELS) == WEBUIS
    assert tuple(NEO_LABELS) == NEO
    assert tuple(label for label, (sampler, _) in LABELS.items() if sampler.benched) == cli.BENCH_SAMPLERS


# Outputs


def test_what_is_asked_of_outputs_leaves_nothing(tmp_path):
    (tmp_path / "old.png").write_bytes(b"old")
    outputs.check_picture(tmp_path / "new" / "a.png", "--out")
    outputs.check_picture(tmp_path / "old.png", "--out")
    outputs.check_folder(tmp_path / "other", "--folder")
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")}
    assert left == {"new", "other", "old.png"}
    assert (tmp_path / "old.png").read_bytes() == b"old"


@pytest.mark.parametrize("ending", sorted(Image.registered_extensions()))
def test_an_ending_that_passes_can_be_written(ending, tmp_path):
    path = tmp_path / f"a{ending}"
    try:
        outputs.check_picture(path, "--out")
    except AsynDMError as error:
        assert "use .png" in str(error)  # noqa: PT017
    else:
        Image.new("RGB", (300, 200)).save(path)


def test_a_sheet_that_is_too_long_for_its_format_is_kept_as_png(tmp_path, capsys):
    from asyndm_lib.demo.generate import _saved

    written = _saved(Image.new("RGB", (8, 20000)), tmp_path / "long.webp")
    assert written == tmp_path / "long.png"
    assert Image.open(written).size == (8, 20000)
    assert "could not be written" in capsys.readouterr().err


# Manifests


def test_a_manifest_holds_work_to_its_question(tmp_path):
    path = tmp_path / "manifest.json"
    manifest.hold(path, {"a": {"b": 1}}, {"methods": {"x": [1, 2]}})
    manifest.hold(path, {"a": {"b": 1}}, {"methods": {"x": [1, 2], "y": 3}}, begun=True)
    manifest.hold(path, {"a": {"b": 1}}, {"methods": {"y": 3}})
    for question, growing, said in [
        ({"a": {"b": 2}}, {}, r"\(a b: 1 there, 2 here"),
        ({"a": {"b": 1}, "c": None}, {"methods": {"x": [1, 3]}}, r"\(methods x 2: 2 there, 3 here\)"),
        ({"a": {}}, {"methods": {}}, r"\(a b: 1 there, nothing here\)"),
        ({"a": {"b": 1}, "c": "text"}, {"methods": {}}, r"\(c: nothing there, text here\)"),
    ]:
        with pytest.raises(AsynDMError, match=said):
            manifest.hold(path, question, growing)


def test_a_setting_that_comes_later_makes_no_other_question_of_a_method():
    method = Method("x", Settings(concavity=0.7), Control(stop=0.5))
    assert manifest.stated(method) == {"name": "x", "settings": {"concavity": 0.7}, "control": {"stop": 0.5}}
    assert manifest.stated((Prompt("a cat", "cat", (("cat", 1),)),)) == [
        {"text": "a cat", "targets": "cat", "things": [["cat", 1]]}
    ]


def test_a_later_count_of_results_is_another_question(tmp_path, monkeypatch):
    manifest.hold(tmp_path / "manifest.json", {})
    monkeypatch.setattr(manifest, "RESULTS", manifest.RESULTS + 1)
    with pytest.raises(AsynDMError, match="results: 1 there, 2 here"):
        manifest.hold(tmp_path / "manifest.json", {})


@pytest.mark.parametrize("content", ["", "{", "[]", "7", "\ud800".encode("utf-16", "surrogatepass")])
def test_what_is_no_manifest_is_said(tmp_path, content):
    path = tmp_path / "manifest.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(AsynDMError, match=r"manifest\.json"):
        manifest.hold(path, {})


def test_a_message_names_few_differences(tmp_path):
    manifest.hold(tmp_path / "m.json", {str(n): n for n in range(9)})
    with pytest.raises(AsynDMError, match=r"2: 2 there, 3 here; 6 more\)"):
        manifest.hold(tmp_path / "m.json", {str(n): n + 1 for n in range(9)})


def test_the_version_stands_in_one_place():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert 'dynamic = ["version"]' in text
    assert __version__ not in text
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
