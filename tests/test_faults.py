"""What becomes of a fault in AsynDM itself."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_attaching import AROUND, Scene, attaching  # noqa: F401

from asyndm_lib.clock.sigma_map import SigmaMap
from asyndm_lib.errors import Fault, TargetError, fault, is_ours
from asyndm_lib.models.parts.resampling import resize


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


@pytest.mark.parametrize("where", ["call", "run", "entering the run", "observer", "sampling", "told"])
def test_the_host_samples_by_itself_wherever_a_call_of_ours_fails(where, attaching, monkeypatch):  # noqa: F811
    scene = Scene(attaching, failing if where == "sampling" else lambda x: "ours")
    run = attaching.Run
    if where == "call":
        monkeypatch.setattr(attaching, "SamplerCall", failing)
    elif where == "run":
        monkeypatch.setattr(attaching, "Run", failing)
    elif where == "entering the run":
        monkeypatch.setattr(run, "__enter__", failing)
    elif where == "observer":
        monkeypatch.setattr(attaching, "_entered", failing)
    elif where == "told":
        monkeypatch.setattr(run, "blind", property(failing), raising=False)
    assert scene.sample() == "x"
    assert scene.said[-1] == "the host samples"
    assert sum("refused: a fault in AsynDM itself" in said for said in scene.said) == 1
    assert scene.given == {"cond": 1}
    assert scene.sampler.func is scene.own
    if where in ("sampling", "told"):
        assert [*AROUND[0]] == scene.said[:3]
        assert "host put back" in scene.said
        assert not any("chose" in said for said in scene.said) or where == "told"


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
