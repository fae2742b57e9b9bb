"""A pass of a host that leaves no trace in it."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch


@pytest.fixture
def module(monkeypatch):
    """The module as in a WebUI, without a WebUI."""
    modules = ModuleType("modules")
    modules.shared = SimpleNamespace(state=SimpleNamespace(sampling_step=0))
    monkeypatch.setitem(sys.modules, "modules", modules)
    name = "asyndm_lib.hosts.common.rehearsal"
    monkeypatch.delitem(sys.modules, name, raising=False)
    module = importlib.import_module(name)
    monkeypatch.setitem(sys.modules, name, module)  # gone afterwards
    return module


def test_a_rehearsal_leaves_all_random_numbers_and_the_count_of_steps_as_they_were(module):
    """PyTorch's own are other extensions', as of sd-webui-cads, which adds noise to the prompts."""
    pictures = torch.Generator().manual_seed(1)
    p = SimpleNamespace(rng=SimpleNamespace(generators=[pictures]), refiner_checkpoint_info="a refiner")
    model = SimpleNamespace(step=3)

    def drawn() -> tuple[float, float]:
        return torch.rand(1).item(), torch.rand(1, generator=pictures).item()

    torch.manual_seed(1)
    expected = drawn()
    torch.manual_seed(1)
    pictures.manual_seed(1)
    with module.rehearsal(p, model, torch.device("cpu")):
        assert p.refiner_checkpoint_info is None
        model.step = 7
        assert drawn() == expected
    assert drawn() == expected
    assert (model.step, p.refiner_checkpoint_info) == (3, "a refiner")
