"""A table of command lines, with the exit code and the first line that each gives:
``command_lines.txt``.

``python tests/command_lines.py`` writes the table anew, for the same inputs; then read the
difference.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import tempfile
import warnings
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import tiny_checkpoints
import torch
from safetensors.torch import save_file

from asyndm_lib import __version__

TABLE = Path(__file__).with_suffix(".txt")


class Row(NamedTuple):
    """One command line. ``input`` has places in braces. ``line``: the first that it prints, on
    stderr where the code is not 0."""

    input: str
    code: int
    line: str


class Outcome(NamedTuple):
    """What a command line gives."""

    code: int
    out: str
    err: str

    def row(self, input: str, places: dict[str, str]) -> Row:
        """The table's row of it."""
        first = (self.err if self.code else self.out).splitlines()[:1]
        return Row(input, self.code, alike("".join(first), places))


def read() -> list[Row]:
    """The table: an input a line, and below it, after a tab, its code and first line."""
    lines = TABLE.read_text(encoding="utf-8").splitlines()
    rows = []
    for input, result in zip(lines[::2], lines[1::2], strict=True):
        code, _, line = result.strip().partition(" ")
        rows.append(Row(input, int(code), line))
    return rows


def alike(line: str, places: dict[str, str]) -> str:
    """A line as every machine and every Python has it."""
    for name, place in sorted(places.items(), key=lambda item: -len(item[1])):
        line = line.replace(place, f"{{{name}}}").replace(f"}}{os.sep}", "}/")
    line = re.sub(r"^(usage: .*? \[-h\]).*", r"\1 …", line.replace(__version__, "{version}"))
    line = re.sub(r"\(choose from .*\)", "(choose from …)", line)
    line = re.sub(r"(there are|it has|has no eta;) [^:]*, .*", r"\1 …", line)  # lists grow
    # What a system says of its files and connections is its own.
    said = r"(cannot write|cannot be read|cannot be written to|is not a results file|is no file of|no WebUI)\b.*?: "
    return re.sub(f"({said}).*", r"\1…", line)


def prepare(folder: Path) -> dict[str, str]:
    """Make the files that the inputs name, and return their places."""
    tiny_checkpoints.make(folder, "sd1")
    yaml = (folder / "tiny-sd1.yaml").read_text(encoding="utf-8")
    whole = (folder / "tiny-sd1.safetensors").read_bytes()
    texts = {
        "file": "this is a text\n",
        "json": '{"a": 1}',
        "cats": "a cat\ta cat\n",
        "bad_targets": "a cat\tcat:7\n",
    }
    places = {"tmp": folder, "sd1": folder / "tiny-sd1.safetensors"}
    for name, text in texts.items():
        places[name] = folder / f"{name}.{'json' if name == 'json' else 'txt'}"
        places[name].write_text(text, encoding="utf-8")
    for name, weight in {"lora": "lora_unet_x.lora_up.weight", "sdxl": "conditioner.embedders.0.x"}.items():
        places[name] = folder / f"{name}.safetensors"
        save_file({weight: torch.zeros(2)}, places[name])
    for name, content in {"cut": whole[: len(whole) // 2], "bare": whole}.items():
        places[name] = folder / f"{name}.safetensors"
        places[name].write_bytes(content)
    (folder / "cut.yaml").write_text(yaml, encoding="utf-8")
    for name in ("webui", "full_webui"):
        places[name] = folder / name
        places[name].mkdir()
        (places[name] / "webui.py").touch()
    (folder / "full_webui" / "models").touch()
    (folder / "folder.png").mkdir()
    (folder / "run").mkdir()
    return {name: str(place) for name, place in places.items()}


def outcome(input: str, places: dict[str, str]) -> Outcome:
    """Run a command line in this process."""
    program, *words = shlex.split(input)
    for name, place in places.items():
        words = [word.replace(f"{{{name}}}", place) for word in words]
    name = "asyndm_lib.cli" if program == "asyndm" else f"asyndm_lib.{program}"
    module = import_module(f"{name}.__main__" if name.endswith(".training") else name)
    out, err = io.StringIO(), io.StringIO()
    before = Path.cwd()
    os.chdir(Path(places["tmp"]) / "run")
    try:
        with redirect_stdout(out), redirect_stderr(err), warnings.catch_warnings():
            code = module.main(words)
    except SystemExit as end:  # of --help and --version
        code = end.code or 0
    finally:
        os.chdir(before)
    return Outcome(code, out.getvalue(), err.getvalue())


def main() -> None:
    """Write the table anew."""
    from asyndm_lib.evaluation import scorers

    scorers.available = lambda device, exact, names: ({}, {"CLIPScore": "no weights"})
    with tempfile.TemporaryDirectory() as folder:
        places = prepare(Path(folder))
        inputs = [row.input for row in read()]
        rows = [outcome(input, places).row(input, places) for input in inputs]
    TABLE.write_text("".join(f"{row.input}\n\t{row.code} {row.line}\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
