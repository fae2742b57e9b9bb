"""Around every batch of a WebUI: read the settings, prepare each sampling call, or say why not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import AsynDMError, TargetError, TooFewSteps, fault
from ..hosts.common import hand_mask
from ..hosts.common.live_view import LiveView
from ..hosts.common.task import Task
from ..pictures.film import Film
from ..prompt.prompt_targets import PromptTargets
from ..prompt.suggestions import question
from ..prompt.target_list import Target
from ..run.outcome import Outcome
from . import arguments, choices, gallery, infotext, job, messages, options, outcomes

if TYPE_CHECKING:  # it imports what a WebUI that is not supported may lack
    from ..hosts.common.adapter import Adapter


def end(p: Any, args: Sequence[Any]) -> None:
    """End the sampling of a batch of ``p``: say so where the host never asked before it."""
    if job.of(p).asked:
        return
    try:
        wanted = arguments.of(p, args) is not None
    except AsynDMError:
        wanted = True
    if wanted:
        messages.report(p, "a script samples in its own way. The picture was made without AsynDM")


def prepare(host: Adapter, p: Any, args: Sequence[Any]) -> None:
    """Have the coming sampling call of ``p`` run on sigma maps, if ``args`` ask for it and it can.

    ``args``: the script's arguments. Whatever hinders it becomes one message, and the host samples
    by itself; the infotext tells of AsynDM only where it worked.
    """
    job.update(p, asked=True)
    call = _SamplingCall(p)
    try:
        _prepare(host, p, args, call)
    except Exception as error:
        host.detach(p.sampler)
        call.refused(fault(error))


def _prepare(host: Adapter, p: Any, args: Sequence[Any], call: _SamplingCall) -> None:
    host.detach(p.sampler)
    if not call.second:
        job.update(p, first=False)
        infotext.erase(p.extra_generation_params)
    try:
        asked = arguments.of(p, args)
    except AsynDMError as error:  # the same in both passes
        call.report(f"{error}. The picture was made without AsynDM")
        return
    settings = asked.of_second_pass() if asked and call.second else asked
    if asked is None:
        job.update(p, asked=False)  # an ordinary job keeps nothing, however it ends
        if job.of(p).axes:
            messages.tell(p, outcomes.OFF_AT_FIRST)
    if asked is None or settings is None:
        return

    chosen = job.of(p).chosen
    host.check(p)
    hand = hand_mask.of(p, settings)
    targets = host.prompt_targets(p, settings, chosen)
    try:
        shortcomings = [] if targets is None else list(_shortcomings(targets))
    except TargetError as error:
        if hand is None:
            raise
        targets, shortcomings = None, [f"{error}; the mask alone was used"]
    for shortcoming in shortcomings:
        call.report(shortcoming)

    call.film = gallery.film(p, settings, targets, hand is not None)
    live_view = LiveView() if options.live_view() else None
    observers = [observer for observer in (call.film, live_view) if observer is not None]
    if not call.second:
        job.update(p, first=True)
    painted = None if hand is None else hand.painted
    host.attach(p, Task(settings, targets, chosen, call, observers, painted))
    p.extra_generation_params.update(infotext.write(asked, None if hand is None else hand.digest))


def _shortcomings(targets: PromptTargets) -> Iterator[str]:
    """The messages about ``targets``. Raises :class:`TargetError` if none of them can be used."""
    if not targets.targets:
        raise TargetError("no targets are named, and no word of the prompt names a thing")
    missing, unread = targets.missing(), targets.unread()
    absent = [target for target in missing if target not in unread]
    why = [f"{_names(absent)} not found in the prompt{question(absent, targets.texts())}"] if absent else []
    why += [f"{_names(unread)} found only where the model reads the prompt no more (as behind BREAK)"] if unread else []
    if len(missing) == len(targets.targets):
        raise TargetError("; ".join(why))
    for reason in why:
        yield f"{reason}; the other targets were used"
    if any(not targets.named[image] for image in targets.automatic):
        yield "no word of some prompts names a thing; their pictures were made without AsynDM"


def _names(targets: Sequence[Target]) -> str:
    return ", ".join(f'"{target!s:.80}"' for target in targets)


class _SamplingCall:
    """One sampling call of a job: a :class:`hosts.common.task.Listener` that tells the person.

    ``second``: it is hires fix's second pass. ``film``: what observes it, or None.
    """

    def __init__(self, p: Any):
        self._p = p
        self.second: bool = getattr(p, "is_hr_pass", False)
        self.film: Film | None = None

    def report(self, text: str) -> None:
        messages.report(self._p, text)

    def refused(self, reason: AsynDMError) -> None:
        if not self.second:
            job.update(self._p, first=False)
        if not job.of(self._p).first:
            infotext.erase(self._p.extra_generation_params)
        films = job.of(self._p).films
        job.update(self._p, films=tuple(filmed for filmed in films if filmed.film is not self.film))
        outcomes.withdraw(self._p, self.second)
        if isinstance(reason, TooFewSteps):
            outcomes.note(self._p, None, self.second)
        messages.refuse(self._p, reason, self.second)

    def ran(self, outcome: Outcome) -> None:
        try:
            choices.note(self._p, outcome.chosen)
            outcomes.note(self._p, outcome, self.second)
            if self.film is not None:
                self.film.chose(outcome.chosen)
        except Exception as error:  # the picture is made
            self.report(f"{fault(error)}. Only what lagged is not told")

    def failed(self) -> None:
        job.forget(self._p)
        infotext.erase_told(self._p.extra_generation_params)
