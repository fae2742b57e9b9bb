"""Which adapter a WebUI gets, by what can be imported in it."""

import ast
import importlib
import sys
from pathlib import Path

import pytest

from asyndm_lib import hosts
from asyndm_lib.hosts import _adapter

FILES = {
    "A1111": ((), ".a1111"),
    "Forge": (("modules_forge/forge_version.py", "backend/__init__.py"), ".forge"),
    "Forge Neo": (("modules_forge/forge_version.py", "backend/__init__.py"), ".neo"),
    "reForge": (("modules_forge/forge_version.py", "k_diff/__init__.py"), ".reforge"),
    "Forge Classic": (("modules_forge/forge_version.py", "modules/uni_pc.py"), ".classic"),
    "the first Forge": (("modules_forge/forge_version.py", "modules/__init__.py"), ".unknown"),
}
VERSIONS = {"Forge": "2.0.1v1.10.1", "Forge Neo": "neo", "Forge Classic": "classic"}


@pytest.mark.parametrize("name", FILES)
def test_adapter(name, tmp_path, monkeypatch):
    files, expected = FILES[name]
    for file in files:
        path = tmp_path / file
        path.parent.mkdir()
        path.write_text(f"version = {VERSIONS.get(name)!r}\n")
    packages = ("modules", "modules_forge", "backend", "k_diff")
    for module in [module for module in sys.modules if module.partition(".")[0] in packages]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    try:
        assert _adapter() == expected
    finally:
        for module in ("modules_forge", "modules_forge.forge_version"):
            sys.modules.pop(module, None)


def test_hosts_know_nothing_of_the_state_that_the_interface_keeps_of_a_job():
    for path in Path(hosts.__file__).parent.rglob("*.py"):
        attributes = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
        assert "asyndm" not in attributes, path
