"""The host's own functions, behind those that another extension puts in their place."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from asyndm_lib.hosts.common.untouched import is_replaced, untouched

FILE = """
SIGN = "!"
calls = []

def mark(text):
    calls.append(text)
    return text + SIGN

def parse(text):
    return mark(text).split()
"""


@pytest.fixture
def host(tmp_path: Path) -> ModuleType:
    (tmp_path / "parser.py").write_text(FILE)
    spec = importlib.util.spec_from_file_location("parser", tmp_path / "parser.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_copy_runs_nothing_of_what_others_put_into_the_hosts_module(host):
    seen = []
    host.parse = functools.partial(lambda text, original: seen.append(text) or original(text), original=host.parse)
    host.mark = lambda text: seen.append(text) or "theirs"
    assert host.parse("a cat") == ["theirs"]
    seen.clear()
    copy = untouched(host)
    assert copy.parse("a cat") == ["a", "cat!"]
    assert (seen, host.calls, copy.calls) == ([], [], ["a cat"])


def test_a_function_is_replaced_whatever_stands_in_its_place(host):
    assert not is_replaced(host, "parse")
    original = host.parse
    for other in (functools.wraps(original)(lambda text: original(text)), functools.partial(original), print):
        host.parse = other
        assert is_replaced(host, "parse")
    assert not is_replaced(host, "mark")
