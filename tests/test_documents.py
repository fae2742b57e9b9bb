"""The documents: their length, their links, their commands, and what they say of the settings."""

from __future__ import annotations

import ast
import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest

from asyndm_lib import cli
from asyndm_lib.settings.presets import PRESETS, label
from asyndm_lib.settings.settings import Settings

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PROJECT = (ROOT / "pyproject.toml").read_text("utf-8")
GENERATED = re.compile(r"(<!-- ([\w-]+): begin -->).*?(<!-- \2: end -->)", re.S)
FENCED = re.compile(r"^```.*?^```$", re.M | re.S)


def prose(page: Path) -> str:
    """The page without what a command writes, without code, tables and pictures."""
    text = FENCED.sub("", GENERATED.sub("", page.read_text("utf-8")))
    return "\n".join("" if line.startswith(("|", "![")) else line for line in text.splitlines())


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the page's headings."""
    headings = re.findall(r"^#+ (.*)$", FENCED.sub("", page.read_text("utf-8")), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def rows(page: str, head: str) -> dict[str, list[str]]:
    """The rows of the table below ``head``, by their first cell."""
    table = (ROOT / page).read_text("utf-8").split(head, 1)[1].split("\n\n", 1)[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.strip().splitlines()[1:]]
    return {row[0]: row[1:] for row in cells}


def shown(value: object) -> str:
    """A setting's value as a table has it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)


def test_the_readme_is_short():
    words = [word for word in (ROOT / "README.md").read_text("utf-8").split() if re.search(r"\w", word)]
    assert len(words) < 900


def test_the_readme_has_its_order():
    text = (ROOT / "README.md").read_text("utf-8")
    order = [
        *("![", "## When it helps", "## Install", "| WebUI | models |", "## First picture", "## How do I know"),
        *("## Settings", "| case | preset |", "| setting | default |", "**Cost:**", "## Troubleshooting"),
        *("## Without a WebUI", "## More"),
    ]
    places = [text.index(part) for part in order]
    assert places == sorted(places)


def repository() -> str:
    """The project's address, of which this is the one place."""
    found = re.search(r"^\[project\.urls\]\n(?:#.*\n)*Repository = \"(https://[^\"]+)\"$", PROJECT, re.M)
    assert found
    return found[1]


def test_the_projects_address_is_that_of_pyproject_everywhere():
    name, shown = repository().rsplit("/", 1)[1], []
    files = [*PAGES, *ROOT.glob("*.cff"), *(ROOT / ".github").rglob("*.*"), *(ROOT / "asyndm_lib").rglob("*.py")]
    for file in files:
        if file.is_file():
            shown += re.findall(rf"https?://[\w./-]+/{re.escape(name)}\b", file.read_text("utf-8"))
    assert len(shown) >= 3
    assert set(shown) == {repository()}


@pytest.mark.parametrize("page", ["README.md", "install.py", "metadata.ini"])
def test_the_webuis_are_named_with_the_commits_that_were_run(page):
    named = rows("docs/SUPPORT.md", "| host | version | |\n")
    assert len(named) == 5
    text = " ".join((ROOT / page).read_text("utf-8").replace("\n;", "\n").split())
    for link, (version, _) in named.items():
        name = re.match(r"\[(.*?)('s WebUI)?\]", link)[1]
        commit = version.rpartition(" ")[2]
        assert re.search(rf"{name}( [\d.]+)? \({commit}\)", text), (name, commit)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_line_of_prose_is_over_100_columns(page):
    assert [line for line in prose(page).splitlines() if len(line) > 100] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page):
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8"))
    assert links
    for link in links:
        if re.match(r"https?:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_names_is_there(page):
    named = re.findall(r"`((?:asyndm_lib|tests|docs|scripts|javascript)/[\w./-]*)`", page.read_text("utf-8"))
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_section_of_the_method_that_a_docstring_cites_is_there():
    sections = re.findall(r"^## (\d)\.", (ROOT / "docs" / "METHOD.md").read_text("utf-8"), re.M)
    assert sections == list("123456")
    files = [*(ROOT / "asyndm_lib").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]
    cited = {n for file in files for n in re.findall(r"METHOD\.md,\s+section (\d+)", file.read_text("utf-8"))}
    assert cited <= set(sections)


def test_every_command_can_be_read():
    found = set()
    for page in PAGES:
        text = page.read_text("utf-8").replace("\\\n", " ")
        found |= set(re.findall(r"^python -m asyndm_lib (.*)$", text, re.M))
        found |= set(re.findall(r"`python -m asyndm_lib ([^`]+)`", text))
    words = [shlex.split(command, comments=True) for command in found]
    assert len(words) > 10
    for command in words:
        if "--help" in command or command in (["generate"], ["install-model"]):
            assert command[0] in ("generate", "bench")
        elif command == ["generate", "--checkpoint", "FILE"]:
            assert cli.parser().parse_args([*command, "a cat"])
        else:
            assert cli.parser().parse_args(["1" if word == "N" else word for word in command])


@pytest.mark.parametrize(
    ("page", "head", "default"),
    [
        ("README.md", "| setting | default | meaning |\n", 0),
        ("docs/SETTINGS.md", "| setting | API and command line | values | default | meaning |\n", 2),
    ],
)
def test_the_settings_tables_have_every_setting_in_order_with_its_default(page, head, default):
    table = rows(page, head)
    assert list(table) == [f.metadata["label"] for f in fields(Settings)]
    for f in fields(Settings):
        assert table[f.metadata["label"]][default] == shown(f.default)


def test_the_settings_page_names_every_setting_as_a_program_does():
    table = rows("docs/SETTINGS.md", "| setting | API and command line | values | default | meaning |\n")
    assert [row[0] for row in table.values()] == [f"`{f.name}`" for f in fields(Settings)]


def test_the_presets_table_is_that_of_the_presets():
    table = rows("docs/SETTINGS.md", "| preset | concavity | curve | mask timing | mask threshold | whole picture |\n")
    assert list(table) == [label(name) for name in PRESETS]
    for name, preset in PRESETS.items():
        values = [preset[key] for key in ("concavity", "curve", "mask_timing", "threshold", "whole_picture")]
        assert table[label(name)] == list(map(shown, values))


def texts(node: ast.expr) -> str:
    """What a text in the code says, with … for what it does not say there."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(texts(part) for part in node.values)
    if isinstance(node, ast.BinOp):
        return texts(node.left) + texts(node.right)
    return "…"


def told() -> dict[str, str]:
    """The messages that the code has for a person of a WebUI, and their places."""
    found = {}
    rooms = ("hosts", "interface", "masks", "models", "pictures", "prompt", "run", "settings")
    for file in (file for room in rooms for file in (ROOT / "asyndm_lib" / room).rglob("*.py")):
        if "standalone" in file.parts or file.name in FOR_PROGRAMS:
            continue
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            name = getattr(getattr(node, "func", None), "id", getattr(getattr(node, "func", None), "attr", ""))
            if name in TELLING and node.args:
                text = max((texts(argument) for argument in node.args), key=len)
                if len(re.sub(r"\W", "", text)) > 12:
                    found[text] = file.name
    return found


TELLING = ("Unsupported", "TooFewSteps", "TargetError", "SettingsError", "report")


FOR_PROGRAMS = ("api.py", "arguments.py")
"""Files whose messages only a program that asks wrongly ever gets; docs/API.md is about them."""


def phrases(page: str, head: str) -> list[str]:
    return [phrase for first in rows(page, head) for phrase in re.findall(r"(?<!\*)\*([^*]+)\*(?!\*)", first)]


def pattern(phrase: str) -> re.Pattern[str]:
    return re.compile(".*?".join(re.escape(part.strip()) for part in phrase.split("…")))


MESSAGES = phrases("docs/TROUBLESHOOTING.md", "| message | what to do |\n")
FOLLOWS = ("The picture was made without AsynDM", "The second pass was made without", "Only what")
"""What stands behind a message of another place."""


def test_every_message_has_its_line_in_the_troubleshooting():
    known = told()
    assert len(known) > 25
    without = {
        text: file
        for text, file in known.items()
        if not any(pattern(phrase).search(text) for phrase in MESSAGES)
        and not any(text.lstrip("…. ").startswith(start) for start in FOLLOWS)
    }
    assert without == {}


@pytest.mark.parametrize(
    "phrase", {*MESSAGES, *phrases("README.md", "| message, or what you see | what to do |\n")} - {"AsynDM", "Targets"}
)
def test_every_message_of_the_troubleshooting_is_one_of_the_code(phrase):
    code = " ".join(file.read_text("utf-8") for file in (ROOT / "asyndm_lib").rglob("*.py"))
    code = re.sub(r"""["']\s*\n\s*f?["']""", "", code).lower()
    parts = [part.strip(" ;,") for part in phrase.lower().split("…")]
    for part in parts:
        assert part in code


def test_every_case_of_the_readme_names_a_preset():
    table = rows("README.md", "| case | preset | sampler, steps, CFG |\n")
    assert {row[0].strip("*") for name, row in table.items()} - {"---"} <= {label(name) for name in PRESETS}
    assert len(table) >= 5


def test_every_picture_that_a_page_shows_is_there_and_is_described():
    for page in PAGES:
        for described, path in re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", page.read_text("utf-8")):
            assert (page.parent / path).is_file(), path
            assert len(described) > 5, path
