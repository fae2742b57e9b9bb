"""A pass of a host that leaves no trace in it."""

from __future__ import annotations

import functools
import importlib
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn

from asyndm_lib.models.parts.patching import watched


@pytest.fixture
def module(monkeypatch):
    """The module as in a WebUI, without a WebUI."""
    modules = ModuleType("modules")
    modules.shared = SimpleNamespace(state=SimpleNamespace(sampling_step=0))
    callbacks = {f"callbacks_cfg_{name}": [] for name in ("denoiser", "denoised", "after_cfg")}
    modules.script_callbacks = SimpleNamespace(callback_map=callbacks)
    monkeypatch.setitem(sys.modules, "modules", modules)
    for name in ("asyndm_lib.hosts.common.others_counts", "asyndm_lib.hosts.common.rehearsal"):
        monkeypatch.delitem(sys.modules, name, raising=False)
        module = importlib.import_module(name)
        monkeypatch.setitem(sys.modules, name, module)  # gone afterwards
    return module


def test_a_rehearsal_leaves_all_random_numbers_and_the_count_of_steps_as_they_were(module):
    """PyTorch's own are other extensions', as of sd-webui-cads, which adds noise to the prompts."""
    pictures = torch.Generator().manual_seed(1)
    p = SimpleNamespace(rng=SimpleNamespace(generators=[pictures]), refiner_checkpoint_info="a refiner")
    model, state = nn.Module(), sys.modules["modules"].shared.state

    model.step = 3

    def drawn() -> tuple[float, float]:
        return torch.rand(1).item(), torch.rand(1, generator=pictures).item()

    torch.manual_seed(1)
    expected = drawn()
    torch.manual_seed(1)
    pictures.manual_seed(1)
    with module.rehearsal(p, model, torch.device("cpu"), []):
        assert p.refiner_checkpoint_info is None
        model.step = state.sampling_step = 7
        assert drawn() == expected
    assert drawn() == expected
    assert (model.step, state.sampling_step, p.refiner_checkpoint_info) == (3, 0, "a refiner")


in_a_module = 0
"""Counted by an extension in its own module."""

other_module = ModuleType("other_module")
other_module.counted = 0


class Named:
    counted = 0


def helper() -> None:
    other_module.counted += 1
    Named.counted += 1


class Counting:
    """An extension that counts the model's calls, in every place where one may."""

    of_class = 0

    def __init__(self):
        self.of_object, self.of_option, self.height, self.is_begun = 0, 0, 0, False
        around = 0

        def hook(*args: object) -> None:
            global in_a_module
            nonlocal around
            around, in_a_module = around + 1, in_a_module + 1
            helper()

        self.hook, self.around = hook, lambda: around

    def callback(self, params: object) -> None:
        self.of_object, Counting.of_class = self.of_object + 1, Counting.of_class + 1
        self.height, self.is_begun = 12, True

    def option(self, state: dict[str, int], *args: object) -> None:
        self.of_option += 1

    @property
    def counted(self) -> tuple[int, ...]:
        elsewhere = in_a_module, other_module.counted, Named.counted
        return (self.around(), *elsewhere, self.of_object, Counting.of_class, self.of_option)


def test_what_other_extensions_count_is_as_before_a_rehearsal(module):
    """By that a real one, sd-webui-llul, knows in which steps it acts. Another, Regional Prompter,
    keeps the picture's size, which it learns in the first call."""
    theirs, network = Counting(), nn.Sequential(nn.Linear(2, 2))
    network.register_forward_pre_hook(theirs.hook)
    forward = network[0].forward
    network[0].forward = lambda x: (theirs.hook(), forward(x))[1]
    module_of_counts = sys.modules["asyndm_lib.hosts.common.others_counts"]
    callbacks = module_of_counts.script_callbacks.callback_map["callbacks_cfg_denoiser"]
    callbacks.append(SimpleNamespace(callback=theirs.callback))
    option = functools.partial(theirs.option, {})
    others = module_of_counts.functions_of(network, {"patches": {"output": [option]}, "scale": 1.0})

    class Denoiser(nn.Module):
        step = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            callbacks[0].callback(None)
            option()
            return network(x)

    denoiser, x = Denoiser(), torch.ones(1, 2)
    p = SimpleNamespace(rng=SimpleNamespace(generators=[]), refiner_checkpoint_info=None)
    before = theirs.counted
    with module.rehearsal(p, denoiser, torch.device("cpu"), others):
        for _ in range(4):
            denoiser(x)
        assert all(now >= then + 4 for now, then in zip(theirs.counted, before, strict=True))
    assert theirs.counted == before
    assert (theirs.height, theirs.is_begun) == (12, True)
    assert "forward" not in vars(denoiser)


def test_a_count_behind_a_forward_of_ours_that_another_extension_kept_is_seen(module):
    counts_of = sys.modules["asyndm_lib.hosts.common.others_counts"]
    network = nn.Sequential(nn.Linear(2, 2))
    calls, own = 0, network[0].forward

    def counting(x: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return own(x)

    network[0].forward = counting
    with watched(network[0], lambda output: None):
        kept = network[0].forward
        network[0].forward = lambda x: kept(x)
    counts = counts_of.Counts(counts_of.functions_of(network))
    for _ in range(3):
        network(torch.ones(1, 2))
        counts.look()
    assert calls == 3
    counts.restore()
    assert calls == 0
