"""One call of a host's sampler function, taken over: what is told and given back on every path."""

from __future__ import annotations

import importlib
import inspect
import sys
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace

import pytest

from asyndm_lib.errors import TooFewSteps, Unmatched, Unsupported
from asyndm_lib.hosts.common.task import Task
from asyndm_lib.settings.settings import Settings


@pytest.fixture
def attaching(monkeypatch):
    """The module as in a WebUI, without a WebUI."""
    modules = ModuleType("modules")
    modules.sd_samplers = ModuleType("modules.sd_samplers")
    monkeypatch.setitem(sys.modules, "modules", modules)
    monkeypatch.setitem(sys.modules, "modules.sd_samplers", modules.sd_samplers)
    name = "asyndm_lib.hosts.common.attaching"
    monkeypatch.delitem(sys.modules, name, raising=False)
    module = importlib.import_module(name)
    monkeypatch.setitem(sys.modules, name, module)  # gone afterwards
    monkeypatch.setattr(module, "Run", Run)
    return module


class Run:
    blind = False

    def __init__(self, host, settings, targets, x, observers, masks=None):
        self.outcome, self.problems, self._said, self.moved = "some", {"b", "a"}, host.said, host.moved

    def check_steps(self):
        if self.moved is None:
            raise TooFewSteps("too few")

    def __enter__(self):
        self._said.append("run begins")

    def __exit__(self, *exception):
        self._said.append("run ends")

    def sample(self, sampler, x, **options):
        return sampler(x, **options)


class Watching:
    """An observer that is a context manager too."""

    def __init__(self, said):
        self._said = said

    def __call__(self, seen):
        pass

    def __enter__(self):
        self._said.append("observer enters")

    def __exit__(self, *exception):
        self._said.append("observer leaves")


class Latent(str):
    """What a host gives its sampler. Other extensions write into it."""

    def clone(self):
        return Latent(f"copy of {self}")


class Scene:
    """A host's sampler, attached to; ``said``: what happened in the order in which it did.

    ``host``: what the host's own sampler does at last.
    """

    def __init__(self, attaching, ours, refuses=False, moved=False, host=lambda: None):
        self.said = said = []
        self.given, self.making = None, lambda: None

        def sample_euler(model, x, sigmas=None, extra_args=None):
            said.append("the host samples")
            self.given = extra_args
            host()
            return x

        def make_call(call):
            self.making()
            options = dict(call.options)
            options.clear()  # a call may take its copy apart
            if refuses:
                raise Unsupported("no")
            seen = SimpleNamespace(said=said, moved=moved)
            rewind = lambda: said.append("host put back")  # noqa: E731
            return SimpleNamespace(host=seen, options=options, patched=patched, rewind=rewind)

        @contextmanager
        def patched(run):
            said.append("host patched")
            try:
                yield
            finally:
                said.append("host as before")

        told = SimpleNamespace(
            report=lambda text: said.append(f"report {text}"),
            refused=lambda reason: said.append(f"refused: {reason}"),
            ran=lambda outcome: said.append(f"did {outcome}"),
            failed=lambda: said.append("failed"),
        )
        self.own = sample_euler
        self.sampler = SimpleNamespace(func=sample_euler)
        observers = [lambda seen: None, Watching(said)]
        task = Task(Settings(), None, {}, told, observers)
        attaching.attach(self.sampler, {"sample_euler": ours}, make_call, task)

    def sample(self, sigmas=(2.0, 1.0, 0.0)):
        return self.sampler.func("model", Latent("x"), sigmas=sigmas, extra_args={"cond": 1})


AROUND = ["run begins", "host patched", "observer enters"], ["observer leaves", "host as before", "run ends"]


def test_a_call_is_ours_once_and_what_was_seen_is_told(attaching):
    scene = Scene(attaching, lambda x: "ours")
    assert inspect.signature(scene.sampler.func) == inspect.signature(scene.own)
    assert scene.sample() == "ours"
    assert scene.said == [*AROUND[0], "did some", *AROUND[1], "report a", "report b"]
    assert scene.sampler.func is scene.own


@pytest.mark.parametrize("what", [KeyboardInterrupt, RecursionError, RuntimeError])
def test_everything_is_undone_after_an_exception_and_the_choice_is_told(what, attaching):
    """And that it ended the job; of an interrupted picture, and one with too deep a sampler, the
    host shows what there is."""

    def ours(x):
        raise what

    scene = Scene(attaching, ours)
    with pytest.raises(what):
        scene.sample()
    assert scene.said == [*AROUND[0], "did some", *AROUND[1], *(["failed"] if what is RuntimeError else [])]
    assert scene.sampler.func is scene.own


def test_a_job_that_fails_in_the_hosts_own_sampling_is_told_too(attaching):
    def fails():
        raise MemoryError("out of memory")

    scene = Scene(attaching, lambda x: "ours", refuses=True, host=fails)
    with pytest.raises(MemoryError):
        scene.sample()
    assert scene.said == ["refused: no", "the host samples", "failed"]


def test_a_refused_call_is_the_hosts_own_with_all_its_options(attaching):
    scene = Scene(attaching, lambda x: "ours", refuses=True)
    assert scene.sample() == "x"
    assert scene.said == ["refused: no", "the host samples"]
    assert scene.given == {"cond": 1}
    assert scene.sampler.func is scene.own


def test_a_device_that_fails_when_a_run_is_asked_what_it_did_hides_no_error(attaching, monkeypatch):
    def ours(x):
        raise MemoryError("out of memory")

    class Silent(Run):
        @property
        def outcome(self):
            raise RuntimeError("the device does not answer")

        @outcome.setter
        def outcome(self, value):
            pass

    monkeypatch.setattr(attaching, "Run", Silent)
    scene = Scene(attaching, ours)
    with pytest.raises(MemoryError):
        scene.sample()
    assert sum("the device does not answer" in said for said in scene.said) == 1


def test_a_call_of_too_few_steps_is_the_hosts_own(attaching):
    scene = Scene(attaching, lambda x: "ours", moved=None)
    assert scene.sample() == "x"
    # What the call was made of may have drawn random numbers.
    assert scene.said == ["host put back", "refused: too few", "the host samples"]


def _unmatched(x):
    raise Unmatched("no levels")


def test_a_call_whose_pixels_had_not_their_levels_is_made_again_by_the_host(attaching):
    scene = Scene(attaching, _unmatched)
    assert scene.sample() == "x"
    assert scene.said == [*AROUND[0], *AROUND[1], "host put back", "refused: no levels", "the host samples"]
    assert scene.given == {"cond": 1}
    assert scene.sampler.func is scene.own


def test_from_a_refiner_there_is_no_way_back(attaching):
    scene = Scene(attaching, _unmatched, moved=True)
    with pytest.raises(Unmatched):
        scene.sample()
    assert scene.said == [*AROUND[0], *AROUND[1], "failed"]


def test_a_call_attached_to_twice_gives_back_the_hosts_own_function(attaching):
    scene = Scene(attaching, lambda x: "ours")
    attaching.attach(scene.sampler, {}, None, None)
    attaching.detach(scene.sampler)
    assert scene.sampler.func is scene.own
