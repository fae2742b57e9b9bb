"""What AsynDM keeps of a job of the WebUI, whose ``p`` scripts copy shallowly."""

from __future__ import annotations

from copy import copy
from types import SimpleNamespace

from asyndm_lib.interface import arguments, job
from asyndm_lib.interface.job import Job
from asyndm_lib.settings.settings import Settings


def begun(p: SimpleNamespace, iteration: int = 0) -> SimpleNamespace:
    p.iteration = iteration
    job.begin_batch(p)
    return p


def test_a_job_that_was_not_begun_is_an_empty_one():
    assert job.of(SimpleNamespace()) == Job()
    assert job.of(SimpleNamespace(asyndm=None)) == Job()


def test_axes_of_a_cell_add_up_and_hold_for_it_alone():
    plot = begun(SimpleNamespace())
    first, second = copy(plot), copy(plot)
    job.update(first, axes={"concavity": 0.7})
    job.update(first, axes={**job.of(first).axes, "targets": "cat"})
    job.update(second, axes={"concavity": 0.1})
    assert arguments.of(begun(first), []) == Settings(targets="cat", concavity=0.7)
    assert arguments.of(begun(second), []) == Settings(concavity=0.1)
    assert arguments.of(plot, []) is None


def test_a_copy_shares_no_state_that_comes_later():
    p = begun(SimpleNamespace())
    job.update(p, chosen={0: ("cat",)}, pictures=1)
    before = job.of(p)
    other = begun(copy(p))
    job.update(other, chosen={0: ("dog",)}, pictures=3, asked=True)
    assert job.of(p) is before
    assert (before.chosen, before.pictures, before.asked) == ({0: ("cat",)}, 1, False)


def test_a_further_batch_forgets_only_the_one_before():
    p = begun(SimpleNamespace())
    job.update(p, axes={"concavity": 0.7}, chosen={0: ("cat",)}, pictures=1, asked=True, films=("a film",))
    assert job.of(begun(p, 1)) == Job(axes={"concavity": 0.7}, chosen={0: ("cat",)}, pictures=1)


def test_a_job_begun_anew_keeps_its_axes_alone():
    p = begun(SimpleNamespace())
    job.update(p, axes={"concavity": 0.7}, chosen={0: ("cat",)}, pictures=1, asked=True)
    assert job.of(begun(p)) == Job(axes={"concavity": 0.7})


def test_a_job_that_is_over_leaves_nothing_on_p_which_another_extension_may_keep():
    """sd-webui-incantations keeps every one with which its PAG was on."""
    p = begun(SimpleNamespace())
    job.update(p, chosen={0: ("cat",)}, pictures=1, asked=True)
    job.forget(p)
    assert vars(p) == {"iteration": 0}


def test_an_ordinary_job_leaves_nothing_on_p_however_it_ends():
    p = begun(SimpleNamespace())
    job.update(p, asked=True)
    job.update(p, asked=False, first=False)
    begun(p, 1)
    assert vars(p) == {"iteration": 1}
