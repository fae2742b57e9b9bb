"""What a job whose sampling failed leaves behind, and what it leaves to the jobs around it."""

from __future__ import annotations

import importlib
import sys
from copy import copy
from types import ModuleType, SimpleNamespace

import pytest

from asyndm_lib.interface import infotext, job
from asyndm_lib.run.outcome import Outcome, Slowed
from asyndm_lib.settings.settings import Settings


class Processing(SimpleNamespace):
    """What a sampling call of ours needs of the host's ``StableDiffusionProcessing``."""

    def __init__(self):
        super().__init__(comments={}, extra_generation_params={}, iteration=0, batch_size=1, prompts=["a cat"])

    def comment(self, text: str) -> None:
        self.comments[text] = 1


HOSTS = ("gradio", "modules", "modules.images", "modules.shared")


@pytest.fixture
def sampling_call(monkeypatch):
    """Makes a sampling call of ``p`` as in a WebUI, without a WebUI."""
    for name in HOSTS:
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    modules = sys.modules["modules"]
    modules.images, modules.shared = (sys.modules[name] for name in HOSTS[2:])
    modules.images.get_font = print
    before = set(sys.modules)
    module = importlib.import_module("asyndm_lib.interface.preparation")

    def begin(p):
        job.begin_batch(p)
        infotext.erase(p.extra_generation_params)  # as before a first pass
        job.update(p, asked=True, first=True)
        p.extra_generation_params.update(infotext.write(Settings(targets="cat")))
        return module._SamplingCall(p)

    yield begin
    for name in sorted(set(sys.modules) - before, reverse=True):  # a package after what is in it
        if name.startswith("asyndm_lib."):
            package, _, own = name.rpartition(".")
            delattr(sys.modules[package], own)
            del sys.modules[name]


def outcome() -> Outcome:
    return Outcome([Slowed(None, 1.0, 2.0)], 20, 17, [("cat",)], None, False)


LINE = "AsynDM: No zebra; the other targets were used."


def test_a_failed_job_leaves_no_state_and_nothing_of_its_pictures(sampling_call):
    p = Processing()
    sampling_call(p).ran(outcome())
    p.iteration = 1
    call = sampling_call(p)
    call.ran(outcome())
    call.failed()
    assert "asyndm" not in vars(p)
    assert not {infotext.CHOSEN, infotext.SLOWED} & p.extra_generation_params.keys()


def test_a_cell_that_fails_takes_no_message_of_the_other_cells_out_of_the_info(sampling_call):
    """The cells of a plot share the info, and the host goes on with the next one."""
    plot = Processing()
    sampling_call(copy(plot)).report("no zebra; the other targets were used")
    sampling_call(copy(plot)).failed()
    sampling_call(copy(plot)).ran(outcome())
    assert plot.extra_generation_params["AsynDM messages"] == (LINE,)


def test_a_message_of_a_cell_that_fails_is_in_the_info_of_the_next_that_says_it_too(sampling_call):
    plot = Processing()
    first = sampling_call(copy(plot))
    first.report("no zebra; the other targets were used")
    first.failed()
    sampling_call(copy(plot)).report("no zebra; the other targets were used")
    assert plot.extra_generation_params["AsynDM messages"] == (LINE,)


def test_a_plot_whose_first_cell_fails_has_the_settings_in_the_infotext_of_its_grid(sampling_call):
    """The host writes it from that cell."""
    cell = Processing()
    call = sampling_call(cell)
    call.ran(outcome())
    call.failed()
    assert cell.extra_generation_params == infotext.write(Settings(targets="cat"))


