"""Puts a run in the place of one call of the host's sampler function.

The host keeps its samplers' entry points, its CFG denoiser, its callbacks and its random numbers;
what changes is the update formula between two model calls, and the noise level that each pixel has
in one.
"""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, NamedTuple, NoReturn, Protocol

from modules import sd_samplers
from torch import Tensor

from ...errors import Unsupported, fault, is_ours
from ...prompt.prompt_targets import PromptTargets
from ...run.host import Host
from ...run.run import Run, masks_of
from ...run.step import Observer, Seen
from ...samplers.table import UNFIT
from .task import Listener, Task


class SamplerCall(NamedTuple):
    """The host's call ``(model, x, **options)`` of its sampler function ``name``."""

    name: str
    model: Any
    x: Tensor
    options: Mapping[str, Any]


class Call(Protocol):
    """One call of a host's sampler function.

    ``host``: the host as a run sees it. ``options``: what is left of the host's options for the
    sampler itself. ``rewind`` puts the host back to where it was before.
    """

    host: Host
    options: dict[str, Any]
    rewind: Callable[[], None]

    def patched(self, run: Run) -> AbstractContextManager:
        """The host's denoiser with a noise level per pixel, inside the ``with`` only."""


Samplers = Mapping[str, Callable[..., Tensor]]
"""Our samplers by the names of the host's sampler functions."""

ReadTargets = Callable[[], PromptTargets | None]
"""Gives the target words as the host's present text encoder reads them.

None where no words count.
"""

BLIND = (
    "another extension changes what the model's attention works on, so that no token maps could be read; "
    "switch it or AsynDM off"
)

MakeCall = Callable[[Any, ReadTargets, SamplerCall], Call]
"""``(p, read_targets, sampler_call)`` → a sampling call of ``p``. Raises :class:`Unsupported`."""


def check_sampler(samplers: Samplers, labels: Iterable[str], p: Any) -> None:
    """Raise :class:`Unsupported` if ``p``'s coming call is of none of ``samplers``.

    ``labels``: how the host calls those.
    """
    if _function_name(p.sampler) not in samplers:
        refuse_sampler(p, UNFIT.get(_label(p), "is not one that AsynDM knows"), labels)


def refuse_sampler(p: Any, why: str, labels: Iterable[str]) -> NoReturn:
    """Raise :class:`Unsupported` for the sampler of ``p``'s coming sampling call.

    ``why``: what is wrong with it. ``labels``: the samplers to use.
    """
    here = [label for label in labels if label in sd_samplers.all_samplers_map]
    raise Unsupported(f"the sampler {_label(p)!r} {why}; use {', '.join(here)}")


def _label(p: Any) -> str:
    return (p.hr_sampler_name if getattr(p, "is_hr_pass", False) else None) or p.sampler_name


def _function_name(sampler: Any) -> str:
    return getattr(sampler.func, "__name__", "")


def attach(sampler: Any, samplers: Samplers, make_call: Callable[[SamplerCall], Call], task: Task) -> None:
    """Have the coming call of the host's ``sampler`` run on sigma maps, once.

    What shows only at the call, or in it, is told to the task's listener, and the host samples by
    itself.
    """
    detach(sampler)
    original, name = sampler.func, _function_name(sampler)
    once = [(make_call, task)]  # of which an error that somebody keeps keeps no more

    # The host reads the signature to decide which options to pass; wraps() keeps it.
    @functools.wraps(original)
    def sample(model: Any, x: Tensor, **options: Any) -> Tensor:
        detach(sampler)
        listener = once[0][1].listener
        try:
            sampled = _taken_over(*once.pop(), SamplerCall(name, model, x, options), samplers[name])
            return original(model, x, **options) if sampled is None else sampled
        except BaseException as error:
            # A host may keep the error until the garbage collector comes; the run lives no longer.
            clear_frames(error)
            if _ends_the_job(error):
                listener.failed()
            raise
        finally:
            del listener

    sample.asyndm_original = original
    sampler.func = sample


def clear_frames(error: BaseException) -> None:
    """Forget what the functions knew that ``error``, and what it came from, went through."""
    coming: list[BaseException | None] = [error]
    seen: set[int] = set()
    while coming:
        one = coming.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            traceback.clear_frames(one.__traceback__)
            coming += one.__cause__, one.__context__


def _ends_the_job(error: BaseException) -> bool:
    """Whether the host makes no picture after ``error``, as it does of one that is interrupted, or
    whose sampler goes too deep."""
    return isinstance(error, Exception) and not isinstance(error, RecursionError)


def _taken_over(
    make_call: Callable[[SamplerCall], Call], task: Task, theirs: SamplerCall, sampler: Callable[..., Tensor]
) -> Tensor | None:
    """What ``sampler`` of ours makes of ``theirs``; None where the host has to sample by itself."""
    call = None
    try:
        call = make_call(theirs)
        observers = [_observing(observer, task.listener) for observer in task.observers]
        masks = functools.partial(masks_of, painted=task.painted)
        run = Run(call.host, task.settings, task.targets, theirs.x, observers, masks)
        run.check_steps()
    except Exception as error:
        if call is not None:  # a noise sampler of k-diffusion's own has drawn its seed by now
            call.rewind()
        task.listener.refused(fault(error))
        return None
    failed = None
    try:
        # Other extensions may write into x, from which the host may have to begin anew.
        sampled = _sampled(run, call, task, sampler, theirs.x.clone())
        blind, problems = run.blind, sorted(run.problems)
    except Exception as error:
        if not is_ours(error):
            raise
        failed = fault(error)
    if failed is not None:  # what is raised in the clause above would keep the error that it comes from
        try:
            if run.moved:  # the host has no way back from its refiner
                raise failed
            call.rewind()
            task.listener.refused(failed)
            return None
        finally:
            del failed  # it knows this function's frame, and so the run
    if blind:
        task.listener.refused(Unsupported(BLIND))
        return sampled
    for problem in problems:
        task.listener.report(problem)
    return sampled


def _sampled(run: Run, call: Call, task: Task, sampler: Callable[..., Tensor], x: Tensor) -> Tensor:
    with run, call.patched(run), _entered(task.observers):
        counts = True
        try:
            return run.sample(sampler, x, **call.options)
        except Exception as error:
            counts = not is_ours(error)
            raise
        finally:
            del call.host  # its functions would keep the call until the garbage collector comes
            if counts:
                _tell(run, task.listener)


def _tell(run: Run, listener: Listener) -> None:
    """Tell what ``run`` did. A device that failed in it may fail here again."""
    try:
        listener.ran(run.outcome)
    except Exception as error:
        listener.report(f"{fault(error)}. Only what lagged is not told")


def _observing(observer: Observer, listener: Listener) -> Observer:
    """``observer`` until it fails: the picture is worth more than what is shown of it."""
    failed: list[Exception] = []

    def observe(seen: Seen) -> None:
        if failed:
            return
        try:
            observer(seen)
        except Exception as error:
            failed.append(error)
            listener.report(f"{fault(error)}. Only what shows the masks is missing")

    return observe


@contextmanager
def _entered(observers: Sequence[Observer]) -> Iterator[None]:
    """Inside the ``with`` those ``observers`` are entered that are context managers."""
    with ExitStack() as stack:
        for observer in observers:
            if isinstance(observer, AbstractContextManager):
                stack.enter_context(observer)
        yield


def detach(sampler: Any) -> None:
    """Give ``sampler``, which the batches of an img2img job share, its own function back."""
    if hasattr(sampler, "func"):
        sampler.func = getattr(sampler.func, "asyndm_original", sampler.func)
