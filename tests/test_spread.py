"""Work handed to several makers: whichever is free takes the next, and one that is gone costs
nothing."""

from __future__ import annotations

import threading

import pytest

from asyndm_lib.evaluation.spread import Gone, spread


def test_all_makers_work_at_once_and_every_job_is_done_once():
    meeting = threading.Barrier(3, timeout=20)

    def make(maker, job):
        if job < 3:
            meeting.wait()  # nobody gets on unless all three work
        return maker, job * 10

    done = list(spread(range(8), "abc", make, pytest.fail))
    assert sorted(job for job, _ in done) == list(range(8))
    assert all(made[1] == job * 10 for job, made in done)
    assert {made[0] for job, made in done if job < 3} == set("abc")


def test_the_free_one_takes_the_next():
    hold, fast = threading.Event(), []

    def make(maker, job):
        if maker == "slow":
            assert hold.wait(20)
        else:
            fast.append(job)
            if len(fast) == 5:
                hold.set()
        return maker

    done = dict(spread(range(6), ["slow", "fast"], make, pytest.fail))
    assert list(done.values()).count("fast") == 5


def test_one_that_is_gone_is_named_and_others_do_its_work():
    said, asked = [], []

    def make(maker, job):
        asked.append(maker)
        if maker == "b":
            raise Gone("b does not answer")
        return maker

    done = dict(spread(range(6), "ab", make, lambda maker, error: said.append(f"{maker}: {error}")))
    assert done == dict.fromkeys(range(6), "a")
    assert said == ["b: b does not answer"]
    assert asked.count("b") == 1


@pytest.mark.parametrize("makers", ["a", "abc"])
def test_when_all_are_gone_the_last_one_says_so_and_what_is_done_was_given(makers):
    said, done = [], []
    lock = threading.Lock()
    calls = []

    def make(maker, job):
        with lock:
            calls.append(maker)
            if len(calls) > 4:
                raise Gone(f"{maker} does not answer")
        return job

    ended = spread(range(50), makers, make, lambda maker, error: said.append(f"{maker}: {error}"))
    with pytest.raises(Gone, match="does not answer"):
        done.extend(job for job, _ in ended)
    assert len(done) == 4
    assert len(said) == len(makers) - 1


@pytest.mark.parametrize("makers", ["a", "ab"])
def test_any_other_error_ends_it(makers):
    def make(maker, job):
        if job == 2:
            raise ValueError("no such job")
        return job

    with pytest.raises(ValueError, match="no such job"):
        list(spread(range(5), makers, make, pytest.fail))


def test_jobs_are_drawn_when_a_maker_is_free():
    drawn = []

    def jobs():
        for job in range(10):
            drawn.append(job)
            yield job

    ended = spread(jobs(), "ab", lambda maker, job: job, pytest.fail)
    next(ended)
    assert len(drawn) <= 3
