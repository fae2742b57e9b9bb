"""What a run tells of itself at its end, and the line that a person is told of a job."""

from __future__ import annotations

import gc
import weakref
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from stand_ins import LEVELS, AttendingUNet, make_run, uniform_sigmas
from torch import Tensor

from asyndm_lib.errors import TooFewSteps
from asyndm_lib.interface import infotext, job, messages, outcomes
from asyndm_lib.interface.job import Pass
from asyndm_lib.masks.source import Words
from asyndm_lib.run.outcome import Outcome, Slowed
from asyndm_lib.run.run import masks_of
from asyndm_lib.samplers.table import SAMPLERS

CURVES = ["quadratic", "piecewise linear", "exponential"]
TIMINGS = ["lagged", "fresh", "static"]


def model(x: Tensor, sigma: Tensor) -> Tensor:
    return torch.tanh((x + 0.3 * x.roll(1, -1)) / (1 + sigma))


def latent(images: int) -> Tensor:
    return torch.randn(images, 4, 6, 10, generator=torch.Generator().manual_seed(8), dtype=torch.float64)


def finished(n: int = 9, prompts=("a cat and a dog",), **how):
    """A run over ``n`` evaluations that is over."""
    sigmas = uniform_sigmas(n)
    x = latent(len(prompts)) * sigmas[0]
    with make_run(x, sigmas, model, prompts=list(prompts), **how) as run:
        run.sample(SAMPLERS["sample_euler"], x)
    return run


def attend_alike(unet: AttendingUNet, x: Tensor) -> tuple[Tensor, Tensor]:
    """A call of the model in which every place sees every word alike."""
    unet.time_embed(x.flatten(1))
    attention, cells = unet.input_blocks[1].attn2, -(-x.shape[-2] // 2) * -(-x.shape[-1] // 2)
    return attention.to_q(torch.ones(len(x), cells, 8)), attention.to_k(torch.ones(len(x), 12, 8))


def lags(run, n: int) -> Tensor:
    """How many steps each pixel lagged in each step, by the noise levels that it had."""
    times = LEVELS.sigma_to_t(torch.stack(run.seen))
    own = LEVELS.sigma_to_t(uniform_sigmas(n)[:-1])
    return (times - own.view(-1, 1, 1, 1, 1)) / (own[0] - own[1])


# --- In a run -------------------------------------------------------------------------------------


@pytest.mark.parametrize("concavity", [0.3, 1.0])
def test_the_whole_picture_lags_as_the_formula_says(concavity):
    (slowed,) = finished(9, whole_picture=True, concavity=concavity).outcome.pictures
    assert (slowed.words, slowed.share) == (None, 1.0)
    assert slowed.lag == pytest.approx(max(concavity * i * (1 - i / 8) for i in range(9)))


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("timing", TIMINGS)
def test_the_lag_and_the_share_are_those_of_the_noise_levels(curve, timing):
    run = finished(9, curve=curve, mask_timing=timing, targets="cat, dog:0.8", prompts=["a cat", "a cat and a dog"])
    outcome, seen = run.outcome, lags(run, 9)
    assert outcome.steps == 9
    assert outcome.differing == (6 if timing == "lagged" else 7)
    for image, slowed in enumerate(outcome.pictures):
        assert slowed.lag == pytest.approx(seen[:, image].max().item(), abs=1e-3)
        assert 0 < slowed.share < 1
    assert [slowed.words.reached for slowed in outcome.pictures] == [("cat",), ("cat", "dog")]


@pytest.mark.parametrize("timing", TIMINGS)
def test_as_many_steps_can_differ_as_hold_several_noise_levels(timing):
    for n in range(1, 9):
        run = finished(n, targets="cat", mask_timing=timing, concavity=0.7)
        several = sum(len(levels.unique()) > 1 for levels in run.seen)
        assert several == run.differing, n
        if run.differing:
            run.check_steps()
        else:
            with pytest.raises(TooFewSteps, match=f"^{n} steps? leaves? none in which regions could differ"):
                run.check_steps()


def test_a_share_is_the_mean_of_the_masks_that_maps_made():
    masks = []

    def kept(*args):
        made = masks_of(*args)
        after = made.after

        def watched(i, recorded, step):
            mask = after(i, recorded, step)
            masks.append((i, mask.related.float().mean().item()))
            return mask

        made.after = watched
        return made

    (slowed,) = finished(7, targets="cat", masks=kept).outcome.pictures
    of_maps = [share for i, share in masks if 0 < i < 6]
    assert len(of_maps) == 5
    assert slowed.share == pytest.approx(sum(of_maps) / 5)


def test_words_that_reach_the_threshold_nowhere_are_told_apart(monkeypatch):
    monkeypatch.setattr(AttendingUNet, "forward", attend_alike)
    (slowed,) = finished(targets="cat, dog, zebra", threshold=0.9).outcome.pictures
    assert slowed.words == Words(("cat", "dog"), ())
    assert slowed.share == 1
    (slowed,) = finished(targets="cat, dog, zebra", threshold=1.5).outcome.pictures
    assert slowed.words == Words((), ("cat", "dog"))
    assert slowed.share == 0
    assert slowed.lag > 0  # in the first step, whose mask knows no map


def test_a_word_without_concavity_is_not_told():
    (slowed,) = finished(targets="cat:0, dog").outcome.pictures
    assert slowed.words == Words(("dog",), ())
    (slowed,) = finished(targets="cat", concavity=0.0).outcome.pictures
    assert slowed.share > 0
    assert slowed.lag == 0


def test_what_was_chosen_is_what_is_told():
    outcome = finished(targets="", prompts=["a cat and a dog", "of the"]).outcome
    assert outcome.chosen == [("cat", "dog"), ()]
    assert [slowed.words.reached for slowed in outcome.pictures] == [("cat", "dog"), ()]
    assert outcome.pictures[1].share == outcome.pictures[1].lag == 0


@pytest.mark.parametrize("timing", TIMINGS)
def test_what_a_mask_leaves_of_the_words_is_told_without_the_mask_alone(timing, monkeypatch):
    """The first step of lagged masks knows no map: the mask alone lags in it, which is no share."""
    left = (torch.arange(10) < 5).expand(6, 10)
    how = {"region": "painted", "with_words": "intersection", "masks": partial(masks_of, painted=left)}
    outcome = finished(targets="cat", mask_timing=timing, **how).outcome
    assert outcome.joined == "intersection"
    assert 0 < outcome.pictures[0].share < 0.5
    monkeypatch.setattr(AttendingUNet, "forward", attend_alike)
    outcome = finished(targets="cat", mask_timing=timing, threshold=1.5, **how).outcome
    assert outcome.pictures[0].words == Words((), ("cat",))
    assert outcome.pictures[0].share == 0
    assert (outcome.pictures[0].lag > 0) == (timing == "lagged")


@pytest.mark.parametrize("how", ["union", "intersection"])
@pytest.mark.parametrize("timing", TIMINGS)
def test_words_and_a_mask_need_as_many_steps_as_words(timing, how):
    left = (torch.arange(10) < 5).expand(6, 10)
    least = 4 if timing == "lagged" else 3
    for n in (least - 1, least):
        run = finished(
            n,
            targets="cat",
            mask_timing=timing,
            region="painted",
            with_words=how,
            masks=partial(masks_of, painted=left),
        )
        assert run.differing == n - least + 1


@pytest.mark.parametrize("sampler", ["sample_euler", "sample_heun", "sample_dpmpp_2s_ancestral", "restart_sampler"])
@pytest.mark.parametrize("timing", TIMINGS)
def test_it_is_told_whether_a_run_came_to_its_end(sampler, timing):
    sigmas = uniform_sigmas(6)
    x = latent(1) * sigmas[0]
    with make_run(x, sigmas, model, targets="cat", mask_timing=timing) as run:
        assert run.outcome.stopped
        run.sample(SAMPLERS[sampler], x)
        assert not run.outcome.stopped


def test_an_outcome_keeps_nothing_of_the_run():
    gc.disable()
    try:
        run = finished(targets="cat")
        outcome, gone = run.outcome, weakref.ref(run.masks)
        del run
        gc.collect()
        assert gone() is None
        assert outcome.pictures[0].share > 0
    finally:
        gc.enable()


# --- The line -------------------------------------------------------------------------------------


def slowed(*reached: str, nowhere: tuple[str, ...] = (), share: float = 0.23, lag: float = 2.37) -> Slowed:
    return Slowed(Words(reached, nowhere), share, lag)


WHOLE = Slowed(None, 1.0, 2.37)


def ran(
    *pictures: Slowed,
    steps: int = 20,
    differing: int = 17,
    chosen: bool = False,
    joined: str | None = None,
    stopped: bool = False,
) -> Outcome:
    words = [picture.words.reached if chosen else None for picture in pictures]
    return Outcome(pictures, steps, differing, words, joined, stopped)


def said(*firsts: Outcome, second: Outcome | None = None, hires: bool = False) -> str:
    passes = [Pass(range(0), False, outcome) for outcome in firsts]
    return outcomes.line([*passes, *([Pass(range(0), True, second)] if second else [])], hires)


CAT = 'slowed "cat" by up to 2.4 of 20 steps, in 23 % of the picture'
WORD = '"cat"'
FAST = ran(slowed("cat", share=0.2, lag=1.21), steps=10, differing=7)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (said(ran(slowed("cat"))), f"{CAT}."),
        (
            said(ran(slowed("cat", "dog"), chosen=True)),
            'chose and slowed "cat" and "dog" by up to 2.4 of 20 steps, in 23 % of the picture.',
        ),
        (
            said(ran(slowed("cat", share=0.18), slowed("cat", share=0.25))),
            'slowed "cat" by up to 2.4 of 20 steps, in 18 to 25 % of each picture.',
        ),
        (
            said(ran(slowed("cat")), ran(slowed("dog"))),
            'slowed "cat" and "dog" by up to 2.4 of 20 steps, in 23 % of each picture.',
        ),
        (said(ran(WHOLE)), "slowed the whole picture by up to 2.4 of 20 steps."),
        (said(ran(Slowed(None, 0.23, 2.37))), f"{CAT.replace(WORD, 'the region of the mask')}."),
        (
            said(ran(slowed("cat"), joined="union")),
            f"{CAT.replace(WORD, f'{WORD} and the region of the mask')}.",
        ),
        (
            said(ran(slowed("cat"), joined="intersection")),
            f"{CAT.replace(WORD, f'{WORD} within the region of the mask')}.",
        ),
        (said(ran(slowed(), joined="union")), f"{CAT.replace(WORD, 'the region of the mask')}."),
        (
            said(ran(slowed("cat", nowhere=("dog",), share=0, lag=0), joined="intersection")),
            'slowed nothing, as no place of "cat" is within the region of the mask.',
        ),
        (
            said(ran(slowed("cat", share=0), joined="intersection")),
            "slowed the region of the mask in the first step and nothing afterwards, "
            'as no place of "cat" is within the region of the mask.',
        ),
        (
            said(ran(slowed(nowhere=("cat",), share=0, lag=0), joined="intersection")),
            'slowed nothing, as no place reached the mask threshold for "cat".',
        ),
        (said(ran(slowed("cat", share=0.001))), f"{CAT.replace('23', '1')}."),
        (said(ran(slowed("cat"), steps=20, differing=2)), f"{CAT} (regions could differ in 2 of the steps only)."),
        (said(ran(slowed("cat", nowhere=("dog",)))), f'{CAT}, and found no place for "dog".'),
        (said(ran(slowed("cat"), slowed(share=0, lag=0))), f"{CAT}; 1 of 2 pictures had nothing to slow."),
        (said(ran(slowed("cat", lag=0.0))), "slowed nothing, as the concavity is 0."),
        (
            said(ran(slowed(nowhere=("cat",), share=0, lag=0))),
            'slowed nothing, as no place reached the mask threshold for "cat".',
        ),
        (
            said(ran(slowed(nowhere=("cat",), share=0, lag=1))),
            "slowed all alike in the first step and nothing afterwards, "
            'as no place reached the mask threshold for "cat".',
        ),
        (said(ran(slowed(share=0, lag=0), stopped=True)), "slowed nothing, as the picture was stopped before."),
        (said(ran(slowed(share=0, lag=0))), "slowed nothing, as no target was seen."),
        (said(ran(slowed("cat")), hires=True), f"{CAT}, in the first pass alone."),
        (said(second=ran(slowed("cat")), hires=True), f"{CAT}, in the second pass alone."),
        (said(ran(slowed("cat")), second=ran(slowed("cat")), hires=True), f"{CAT}, in both passes."),
        (
            said(ran(slowed("cat")), second=FAST, hires=True),
            f'{CAT}; in the second pass it slowed "cat" by up to 1.2 of 10 steps, in 20 % of the picture.',
        ),
    ],
)
def test_the_line(line, expected):
    assert line == expected


def test_the_line_is_short_whatever_the_words():
    line = said(ran(slowed(*(f"{n}" * 200 for n in range(60)))))
    assert len(line) < 600
    assert "and 52 more by up to" in line


# --- In a job -------------------------------------------------------------------------------------


class Processing(SimpleNamespace):
    """What the line needs of the host's ``StableDiffusionProcessing``."""

    def __init__(self, prompts: int = 1, count: int = 1, script: int = 0):
        super().__init__(comments={}, extra_generation_params={}, iteration=0, batch_size=prompts, script_args=[script])
        self.prompts = ["a cat"] * prompts
        self.all_prompts = ["a cat"] * (prompts * count)

    def comment(self, text: str) -> None:
        self.comments[text] = 1

    def texts(self) -> list[str | None]:
        told = self.extra_generation_params[infotext.SLOWED]
        return [told(self, n, self.all_prompts) for n in range(len(self.all_prompts))]


def processed() -> SimpleNamespace:
    return SimpleNamespace(comments="a comment of the host's\n", infotexts=["a cat"])


def test_a_job_says_it_once_and_each_infotext_has_its_own(capsys):
    p, done = Processing(2, 2), processed()
    for p.iteration, share in enumerate((0.2, 0.4)):
        outcomes.note(p, ran(slowed("cat", share=share), slowed("cat", share=share + 0.1)), False)
    outcomes.say(p, done)
    line = 'AsynDM slowed "cat" by up to 2.4 of 20 steps, in 20 to 50 % of each picture.'
    assert done.comments == f"a comment of the host's\n{line}\n"
    assert capsys.readouterr().out == f"\n{line}\n"
    assert p.texts() == [f"{n} % of the picture by up to 2.4 of 20 steps" for n in (20, 30, 40, 50)]
    assert "AsynDM messages" not in p.extra_generation_params


def test_two_passes_stand_in_one_infotext():
    p = Processing()
    outcomes.note(p, ran(WHOLE), False)
    outcomes.note(p, FAST, True)
    first = "the whole picture by up to 2.4 of 20 steps"
    assert p.texts() == [f"{first}; 20 % of the picture by up to 1.2 of 10 steps in the second pass"]


def test_a_picture_that_lagged_in_the_first_step_alone_says_so():
    p = Processing()
    outcomes.note(p, ran(slowed(nowhere=("cat",), share=0.0, lag=0.9)), False)
    assert p.texts() == ["nothing after the first step"]


def test_a_pass_of_too_few_steps_is_written_as_made_without():
    p, done = Processing(2), processed()
    outcomes.note(p, None, False)
    assert p.texts() == ["nothing (made without AsynDM)"] * 2
    assert not infotext.was_on({infotext.SLOWED: p.texts()[0]})
    outcomes.say(p, done)
    assert done.comments == processed().comments, "a message says it"


def test_what_the_host_made_anew_is_not_told():
    p, done = Processing(), processed()
    outcomes.note(p, ran(slowed("cat")), False)
    outcomes.withdraw(p, False)
    assert infotext.SLOWED not in p.extra_generation_params
    outcomes.say(p, done)
    assert done.comments == processed().comments


def test_a_job_that_did_nothing_and_one_without_pictures_say_nothing():
    done = processed()
    outcomes.say(Processing(), done)
    p = Processing()
    outcomes.note(p, ran(slowed("cat")), False)
    outcomes.say(p, SimpleNamespace(comments="", infotexts=[]))
    assert p.comments == {}
    assert done.comments == processed().comments


def test_the_jobs_of_a_script_say_it_once_under_the_pictures_and_each_on_the_console(capsys):
    first, second = Processing(script=3), Processing(script=3)
    second.comments = first.comments  # the host copies a job shallowly
    for p, share in ((first, 0.2), (second, 0.4)):
        outcomes.note(p, ran(slowed("cat", share=share)), False)
        outcomes.say(p, processed())
    assert len(first.comments) == 1
    assert next(iter(first.comments)).endswith("in 20 % of the picture." + outcomes.OF_A_SCRIPT)
    assert capsys.readouterr().out.count("AsynDM slowed") == 2


def test_a_plot_whose_first_picture_is_off_says_so_once():
    p = Processing(script=3)
    messages.tell(p, outcomes.OFF_AT_FIRST)
    messages.tell(p, outcomes.OFF_AT_FIRST)
    assert list(p.comments) == [f"AsynDM {outcomes.OFF_AT_FIRST}"]


def test_a_fault_costs_the_line_alone():
    p = Processing()
    job.update(p, passes=("no pass",))
    outcomes.say(p, processed())
    (comment,) = p.comments
    assert comment.startswith("AsynDM: A fault in AsynDM itself")
    assert comment.endswith("Only what lagged is not told.")
