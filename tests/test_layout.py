"""The layout: each room of the package imports lower rooms only, and the core needs no host."""

from __future__ import annotations

import ast
import builtins
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).parent.parent / "asyndm_lib"

ROOMS = (
    "errors",
    "clock",
    "prompt",
    "models",
    "masks",
    "settings",
    "run",
    "samplers",
    "pictures",
    "hosts",
    "interface",
    "demo",
    "bench",
    "evaluation",
    "cli",
)
"""The rooms from the lowest to the highest. A room may import those before it."""

CORE = ROOMS[: ROOMS.index("hosts")]
PACKAGES = {"torch", "numpy"}
"""What the core may import besides the standard library."""


class Import(NamedTuple):
    """One import. ``module`` is its full name, with the imported name at its end."""

    file: Path
    line: int
    module: str

    def __str__(self) -> str:
        return f"{self.file.relative_to(PACKAGE.parent)}:{self.line} imports {self.module}"


def imports_of(file: Path, package: Path = PACKAGE) -> Iterator[Import]:
    """All imports of a file of the package, those within its functions too."""
    folder = (package.name, *file.relative_to(package).parent.parts)
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(file, node.lineno, alias.name)
        elif isinstance(node, ast.ImportFrom):
            base = folder[: len(folder) - node.level + 1] if node.level else ()
            for alias in node.names:
                yield Import(file, node.lineno, ".".join(filter(None, [*base, node.module, alias.name])))


def room_of(file: Path) -> str:
    """The top folder of a file, or the name of a file that lies flat."""
    first, *_ = file.relative_to(PACKAGE).parts
    return first.removesuffix(".py")


def module_of(file: Path) -> str:
    """The full name of the module in a file of the package."""
    parts = (PACKAGE.name, *file.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts).removesuffix(".__init__")


def imports(*rooms: str) -> Iterator[Import]:
    """All imports of all files of these rooms."""
    for file in sorted(PACKAGE.rglob("*.py")):
        if room_of(file) in rooms:
            yield from imports_of(file)


def of_ours(one: Import) -> str | None:
    """The room that is imported; None for another package."""
    top, *inner = one.module.split(".")
    if top != PACKAGE.name:
        return None
    return inner[0] if inner and inner[0] in ROOMS else "__init__"


REFERENCE = re.compile(r":(?:mod|class|func|meth|data|attr):`~?([\w.]+)`")


@cache
def names() -> dict[str, set[str]]:
    """The names that each module of the package defines or imports, and the attributes it sets."""
    found = {}
    for file in PACKAGE.rglob("*.py"):
        own = found.setdefault(module_of(file), set())
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                own.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                own.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                own.add(node.attr)
            elif isinstance(node, ast.alias):
                own.add(node.asname or node.name)
    return found


def exists(reference: str, module: str) -> bool:
    """Whether a docstring's reference names a module, or something in a module."""
    known = names()[module] | names()[f"{PACKAGE.name}.errors"] | set(dir(builtins))
    first, *inner = reference.split(".")
    if first in known and all(part in known for part in inner):
        return True
    parts = [first, *inner]
    for name, defined in names().items():
        for cut in range(1, len(parts) + 1):
            if f".{name}".endswith(f".{'.'.join(parts[:cut])}") and set(parts[cut:]) <= defined:
                return True
    return False


def test_nothing_lies_flat_but_the_entrances():
    flat = {path.name for path in PACKAGE.iterdir() if path.suffix == ".py"}
    assert flat == {"__init__.py", "__main__.py", "cli.py", "errors.py"}
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == set(ROOMS) - {"cli", "errors"}


def test_every_room_says_what_lies_there():
    for init in PACKAGE.rglob("__init__.py"):
        assert ast.get_docstring(ast.parse(init.read_text(encoding="utf-8"))), init


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_lower_rooms_only(room):
    allowed = {*ROOMS[: ROOMS.index(room) + 1], "__init__"}
    backwards = [str(one) for one in imports(room) if (of_ours(one) or room) not in allowed]
    assert not backwards, "\n".join(backwards)


@pytest.mark.parametrize("room", CORE)
def test_the_core_imports_torch_and_numpy_only(room):
    allowed = {*sys.stdlib_module_names, *PACKAGES, PACKAGE.name, *(["PIL"] if room == "pictures" else [])}
    foreign = [str(one) for one in imports(room) if one.module.split(".")[0] not in allowed]
    assert not foreign, "\n".join(foreign)


def test_pictures_import_no_host():
    assert not [str(one) for one in imports("pictures") if of_ours(one) in ("hosts", "interface")]


@pytest.mark.parametrize("room", ["masks", "run"])
def test_runs_and_masks_know_no_family_by_name(room):
    families = {path.stem for path in (PACKAGE / "models").glob("*.py")} - {"__init__", "family"}
    named = [str(one) for one in imports(room) for family in families if f"models.{family}." in f"{one.module}."]
    assert not named, "\n".join(named)


@pytest.mark.parametrize("room", ROOMS)
def test_a_reference_in_a_docstring_names_what_exists(room):
    lost = []
    for file in sorted(PACKAGE.rglob("*.py")):
        if room_of(file) == room:
            module = module_of(file)
            references = REFERENCE.findall(file.read_text(encoding="utf-8"))
            lost += [f"{module}: {reference}" for reference in references if not exists(reference, module)]
    assert not lost, "\n".join(lost)


def test_imports_are_found_in_functions_and_at_every_level(tmp_path):
    package = tmp_path / "lib"
    file = package / "room" / "inner" / "one.py"
    file.parent.mkdir(parents=True)
    file.write_text(
        "import a.b\nfrom .. import c\nfrom ...d import e\ndef f():\n    from .g import h\n    from i.j import k\n"
    )
    found = [one.module for one in imports_of(file, package)]
    assert found == ["a.b", "lib.room.c", "lib.d.e", "lib.room.inner.g.h", "i.j.k"]
