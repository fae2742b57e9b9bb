"""What becomes of a fault in AsynDM itself."""

from __future__ import annotations

import gc
import symtable
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
from test_attaching import AROUND, Scene, _unmatched, attaching  # noqa: F401

from asyndm_lib.clock.sigma_map import SigmaMap
from asyndm_lib.errors import Fault, TargetError, fault, is_ours
from asyndm_lib.models.parts.resampling import resize

HOSTS = Path(__file__).parents[1] / "asyndm_lib" / "hosts"


def place(path: Path) -> str:
    return str(path.relative_to(HOSTS.parent))


def raised(what: object) -> Exception:
    try:
        what()
    except Exception as error:
        return error
    raise AssertionError("it should fail")


def of_us() -> None:
    resize(torch.zeros(2), 1, 1)  # PyTorch fails where AsynDM calls it


def of_theirs() -> None:
    @contextmanager
    def around():
        yield

    with around():
        np.zeros(2).reshape(3)


def test_a_fault_is_ours_where_our_code_or_pytorch_called_by_it_fails():
    assert is_ours(raised(of_us))
    assert not is_ours(raised(of_theirs))
    assert not is_ours(raised(lambda: torch.zeros(2).view(3)))
    assert is_ours(TargetError("no"))


def test_what_another_calls_back_from_our_code_is_theirs():
    def theirs(*_: object) -> None:
        raise RuntimeError

    levels = torch.ones(1)
    assert not is_ours(raised(lambda: SigmaMap(levels[0], levels, levels.long()).apply(theirs)))


def test_a_fault_is_one_line_that_says_where():
    text = str(fault(raised(of_us)))
    assert "a fault in AsynDM itself (" in text
    assert "models/parts/resampling.py:" in text
    assert "\n" not in text
    assert len(text) < 400
    known = TargetError("no")
    assert fault(known) is known
    assert "a fault in AsynDM itself (RuntimeError: x); report it" in str(fault(RuntimeError("x")))


def failing(*_: object, **__: object) -> None:
    of_us()


def interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def scene_of(where: str, what: object, attaching: object, monkeypatch: pytest.MonkeyPatch) -> Scene:  # noqa: F811
    """A call in which ``what`` happens at ``where``."""
    scene = Scene(attaching, what if where == "sampling" else lambda x: "ours")
    owner, name, value = {
        "call": (scene, "making", what),
        "run": (attaching, "Run", what),
        "entering the run": (attaching.Run, "__enter__", what),
        "observer": (attaching, "_entered", what),
        "told": (attaching.Run, "blind", property(what)),
        "sampling": (scene, "given", None),
    }[where]
    monkeypatch.setattr(owner, name, value)
    return scene


WHERE = ("call", "run", "entering the run", "observer", "sampling", "told")


@pytest.mark.parametrize("where", WHERE)
def test_an_interrupt_anywhere_leaves_nothing_and_reaches_the_host(where, attaching, monkeypatch):  # noqa: F811
    scene = scene_of(where, interrupted, attaching, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        scene.sample()
    assert scene.sampler.func is scene.own
    assert "the host samples" not in scene.said
    for enters, leaves in zip(AROUND[0], reversed(AROUND[1]), strict=True):
        assert scene.said.count(enters) == scene.said.count(leaves)


@pytest.mark.parametrize("where", WHERE)
def test_the_host_samples_by_itself_wherever_a_call_of_ours_fails(where, attaching, monkeypatch):  # noqa: F811
    scene = scene_of(where, failing, attaching, monkeypatch)
    assert scene.sample() == "x"
    assert scene.said[-1] == "the host samples"
    assert sum("refused: a fault in AsynDM itself" in said for said in scene.said) == 1
    assert scene.given == {"cond": 1}
    assert scene.sampler.func is scene.own
    if where in ("sampling", "told"):
        assert [*AROUND[0]] == scene.said[:3]
        assert "host put back" in scene.said
        assert not any("did" in said for said in scene.said) or where == "told"


@pytest.mark.parametrize("what", [lambda x: "ours", failing, interrupted])
def test_a_call_is_gone_when_it_is_over_and_waits_for_no_garbage_collector(what, attaching):  # noqa: F811
    class Call:
        options: ClassVar[dict] = {}

        def __init__(self) -> None:
            self.host = SimpleNamespace(predict=lambda: self, said=[], moved=False)

        def patched(self, run: object) -> object:
            return nullcontext()

    gc.disable()
    try:
        call = Call()
        gone = weakref.ref(call)
        run = attaching.Run(call.host, None, None, None, ())
        task = SimpleNamespace(observers=(), listener=SimpleNamespace(ran=lambda outcome: None))
        with suppress(Exception, KeyboardInterrupt):
            attaching._sampled(run, call, task, what, "x")
        del call, run
        assert gone() is None
    finally:
        gc.enable()


def runs_of(attaching: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[weakref.ref]:  # noqa: F811
    """The runs that are made from now on."""
    made: list[weakref.ref] = []

    class Known(attaching.Run):
        def __init__(self, *args: object):
            super().__init__(*args)
            made.append(weakref.ref(self))

        def sample(self, *args: object, **options: object) -> object:
            return super().sample(*args, **options)

    monkeypatch.setattr(attaching, "Run", Known)
    return made


@pytest.mark.parametrize("where", ["ours", "ours, from a refiner", "the host's, anew"])
@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt])
def test_an_error_that_somebody_keeps_keeps_nothing_of_the_run(kind, where, attaching, monkeypatch):  # noqa: F811
    """A host's server may keep the error of a request until the garbage collector comes."""
    gone = runs_of(attaching, monkeypatch)

    def raising(*_: object, **__: object) -> None:
        raise kind

    refined = where == "ours, from a refiner"
    fails = interrupted if refined and kind is KeyboardInterrupt else failing
    scene = Scene(attaching, raising if where == "ours" else fails, host=raising, moved=refined)
    gc.disable()
    try:
        with pytest.raises(Fault if refined and kind is RuntimeError else kind) as kept:
            scene.sample()
        assert kept.value.__traceback__ is not None
        assert [one() for one in gone] == [None]
    finally:
        gc.enable()


@pytest.mark.parametrize("fails", [_unmatched, failing])
def test_a_run_that_is_refused_is_gone_when_the_host_samples(fails, attaching, monkeypatch):  # noqa: F811
    gone = runs_of(attaching, monkeypatch)

    def host() -> None:
        assert [one() for one in gone] == [None]

    gc.disable()
    try:
        assert Scene(attaching, fails, host=host).sample() == "x"
    finally:
        gc.enable()
    assert len(gone) == 1


def test_an_error_that_came_from_another_keeps_nothing_of_what_that_went_through(attaching):  # noqa: F811
    class Kept:
        pass

    gone = []

    def fails(kept: Kept) -> None:
        gone.append(weakref.ref(kept))
        raise ZeroDivisionError

    def tries_again() -> None:
        try:
            fails(Kept())
        except ZeroDivisionError:
            raise RuntimeError from KeyError()

    gc.disable()
    try:
        error = raised(tries_again)
        assert gone[0]() is not None
        attaching.clear_frames(error)
        assert gone[0]() is None
    finally:
        gc.enable()


def enclosing(table: symtable.SymbolTable, within: str = "") -> Iterator[tuple[str, tuple[str, ...]]]:
    """The functions within functions, and what they enclose."""
    for inner in table.get_children():
        name = f"{within}.{inner.get_name()}"
        functions = isinstance(table, symtable.Function) and isinstance(inner, symtable.Function)
        if functions and not inner.get_name().endswith(("comp", "expr")):
            yield name, inner.get_frees()
        yield from enclosing(inner, name)


CALLED = [p for folder in ("hosts", "models", "run") for p in HOSTS.with_name(folder).rglob("*.py")]


@pytest.mark.parametrize("path", [p for p in CALLED if "standalone" not in p.parts], ids=place)
def test_what_stands_in_a_hosts_place_encloses_nothing_of_the_run(path):
    """From Python 3.11 on an error that somebody keeps keeps its frames' functions, and what those
    enclose, whatever is cleared."""
    found = enclosing(symtable.symtable(path.read_text(), path.name, "exec"))
    of_a_run = {"self", "run", "call", "rows", "slices", "task"}
    assert [name for name, frees in found if of_a_run & {*frees}] == []


def test_the_host_begins_anew_with_its_own_latent(attaching):  # noqa: F811
    given = []

    def ours(x: str) -> None:
        given.append(x)
        failing()

    assert Scene(attaching, ours).sample() == "x"
    assert given == ["copy of x"]


def test_where_the_host_has_no_way_back_the_job_ends_in_an_error_that_names_us(attaching):  # noqa: F811
    scene = Scene(attaching, failing, moved=True)
    with pytest.raises(Fault, match="a fault in AsynDM itself"):
        scene.sample()
    assert "the host samples" not in scene.said


def test_an_observer_that_fails_costs_what_it_shows_alone(attaching):  # noqa: F811
    said, seen = [], []

    def observer(one: int) -> None:
        seen.append(one)
        of_us()

    observe = attaching._observing(observer, SimpleNamespace(report=said.append))
    for one in range(3):
        observe(one)
    assert seen == [0]
    (text,) = said
    assert "a fault in AsynDM itself" in text
    assert "Only what shows the masks is missing" in text
