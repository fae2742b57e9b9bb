"""One sampling run: it owns all state of the method, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from .. import models
from ..clock.cells import Box, Cells
from ..clock.clocks import Clock, Mask, make_clock
from ..clock.sigma_map import SigmaMap
from ..errors import TooFewSteps, Unsupported
from ..masks.choice import Chosen
from ..masks.hand import WithWords, by_hand
from ..masks.source import FixedMask, MaskSource
from ..masks.target_masks import TIMINGS, Threshold
from ..models.family import Row
from ..prompt.prompt_targets import PromptTargets
from ..settings.settings import BY_LEVEL, INTERSECTION, Settings
from .host import Descent, Host
from .model_call import ModelCall, Rows, Told
from .outcome import Outcome, Tally
from .step import REMEMBERED, Observer, Seen, Step
from .walk import Walk

MakeMasks = Callable[["PromptTargets | None", Settings, Cells], MaskSource]
"""Makes the masks of a run; without targets, of the whole picture."""


def masks_of(
    targets: PromptTargets | None, settings: Settings, cells: Cells, painted: Tensor | None = None
) -> MaskSource:
    """The masks that the method has for ``targets``, for a mask by hand, or for both together.

    ``painted`` is bool ``[H', W']`` on the CPU; see :func:`masks.hand.by_hand`, and what it raises.
    Without either the whole picture lags.
    """
    hand = None if painted is None else by_hand(painted, settings.concavity, cells)
    if targets is None:
        if hand is None:
            return FixedMask.whole_picture(settings.concavity, cells)
        return FixedMask(hand, [settings.concavity])
    rule = Threshold(targets, settings.concavity, settings.threshold, cells)
    words = TIMINGS[settings.mask_timing](targets, rule, cells)
    if hand is None:
        return words
    named = targets.ever_present().any(dim=1)
    return WithWords(words, hand, settings.concavity, named, settings.with_words == INTERSECTION)


class Run:
    """The method on one host call of a sampler.

    It is used as ``with Run(...) as run: x = run.sample(sampler, x)``. ``moved`` is whether the
    host has left the model for another.

    Hooks are on the model inside the ``with`` only. A :class:`walk.Walk` holds the noise levels, a
    :class:`model_call.ModelCall` the hooks, and a :class:`masks.source.MaskSource` says what lags.
    """

    _walk: Walk

    def __init__(
        self,
        host: Host,
        settings: Settings,
        targets: PromptTargets | None,
        x: Tensor,
        observers: Sequence[Observer] = (),
        masks: MakeMasks = masks_of,
    ):
        """``x [B, C, H, W]`` is the initial latent, for its shape and kind; ``[B, C, 1, H, W]``
        where the model makes videos too.

        Without ``targets`` the whole picture lags, or what ``masks`` has of its own. ``observers``
        see every step of the pass that makes the picture. Raises :class:`errors.Unsupported` if the
        host's model is of no family.
        """
        self.host, self.settings, self._observers = host, settings, observers
        side = models.of(host.model).side(host.model)
        self.cells = Cells(x.shape[0], x.shape[-2], x.shape[-1], side, x.device, x.dim())
        self.dtype = x.dtype
        self.masks = masks(targets, settings, self.cells)
        mixes = not settings.whole_picture and any(self.masks.concavities)
        self.call = ModelCall(host, self.masks, self.cells, settings.normalisation == BY_LEVEL and mixes)
        self.moved = False
        self._reported: set[str] = set()
        self._tally = Tally()
        self._number = 0
        self._reads = False
        self._rehearsing = False

    def __enter__(self) -> Run:
        self.call.attach()
        return self

    def __exit__(self, *exception: object) -> None:
        self.call.detach()

    def leave(self) -> None:
        """The host has left the model of this run for another (a refiner): it has no way back."""
        self.moved = True
        self.call.detach()

    def move(self, model: nn.Module, targets: PromptTargets | None) -> None:
        """The host goes on with another model (a refiner), in whose prompts ``targets`` stand.

        Raises :class:`errors.Unsupported` if it cannot run on the sigma maps of this run.
        """
        self.leave()
        if models.of(model).side(model) != self.cells.side:
            raise Unsupported("the refiner divides a picture in another way than the model; use another one")
        self.masks.move(targets)
        self.call.move(model)

    @torch.no_grad()
    def sample(self, sampler: Callable[..., Tensor], x: Tensor, **options: Any) -> Tensor:
        """Run ``sampler`` (of :mod:`samplers`) on ``x``; with static masks, or normalisation by
        level, an ordinary pass first.
        """
        if self.masks.rehearsing or self.call.learns:
            with self.host.rehearsal(), self.call.learning(), self._ordinary():
                sampler(self, x, **options)
        return sampler(self, x, **options)

    @contextmanager
    def _ordinary(self) -> Iterator[None]:
        """Inside it nothing lags, and only static masks are made."""
        masks, self._rehearsing = self.masks, True
        try:
            if masks.rehearsing:
                yield
                masks.end_rehearsal()
            else:
                self.masks = FixedMask.nothing(self.cells)
                yield
        finally:
            self.masks, self._rehearsing = masks, False

    def __iter__(self) -> Iterator[Step]:
        """The steps of one pass, from a fresh clock."""
        places = [(descent, i) for descent in self.host.descents for i in range(descent.schedule.evaluations)]
        moves = [i + 1 < descent.schedule.evaluations for descent, i in places]
        self.masks.begin(moves, self.host.step())
        before: tuple[SigmaMap, ...] = ()
        for number in self.host.progress(range(len(places))):
            descent, i = places[number]
            risen_from = None
            if i == 0:
                risen_from = self._walk.descent.scalars[-1] if number else None
                before = ()
                self._walk = self._down(descent)
            self._number, self._reads = number, self.masks.wants(number)
            step = Step(self, number, self._walk.begin(i), before, risen_from)
            yield step
            before = (*before[1 - REMEMBERED :], step.sigma)

    def _down(self, descent: Descent) -> Walk:
        return Walk(descent, self.clock(descent), self.cells, torch.promote_types(self.dtype, torch.float32))

    def clock(self, descent: Descent) -> Clock:
        """A clock at the first evaluation of ``descent``."""
        advances = descent.schedule.advances
        return make_clock(
            advances, self.cells.shape, self.settings.curve, self.masks.concavities, self.cells.device
        )

    @property
    def evaluations(self) -> int:
        """How many steps a pass has."""
        return sum(descent.schedule.evaluations for descent in self.host.descents)

    @property
    def problems(self) -> Set[str]:
        """What the person should be told. Waits for the device."""
        return self.masks.problems | self.call.problems | self._reported

    @property
    def blind(self) -> bool:
        """Whether no token map could be read, so that the picture is the host's own."""
        return self.masks.blind

    def report(self, problem: str) -> None:
        """The person should be told of ``problem``."""
        self._reported.add(problem)

    @property
    def differing(self) -> int:
        """In how many steps of a pass cells can be at several noise levels, or all of them lag.

        All are together at the first and the last step of a descent. A step whose maps come one
        step late has all cells lag alike.
        """
        room = [max(descent.schedule.evaluations - 2, 0) for descent in self.host.descents]
        return sum(room) - min(self.masks.mapless, room[0])

    def check_steps(self) -> None:
        """Raise :class:`errors.TooFewSteps` if no step is left in which anything could differ."""
        if self.differing > 0:
            return
        steps, least = self.evaluations, 3 + self.masks.mapless
        what = "regions could differ" if self.masks.reads else "anything could lag"
        raise TooFewSteps(
            f"{steps} {'step leaves' if steps == 1 else 'steps leave'} none in which {what}; "
            f"at least {least} are needed (a low denoising strength makes fewer than are set)"
        )

    @property
    def outcome(self) -> Outcome:
        """What this run did so far. Waits for the device."""
        pictures = self._tally.slowed(self.masks.words())
        joined = self.settings.with_words if self.settings.by_hand else None
        stopped = self._tally.advances < self.evaluations - len(self.host.descents)
        return Outcome(pictures, self.evaluations, self.differing, self.chosen, joined, stopped)

    @property
    def chosen(self) -> Chosen:
        """The words chosen so far, where no targets were named. Waits for the device."""
        return self.masks.chosen()

    @property
    def rehearsing(self) -> bool:
        """Whether this is the ordinary pass before the one that makes the picture."""
        return self._rehearsing

    @property
    def lagging(self) -> Tensor:
        """Pixels that are off the host's own clock, bool ``[B, 1, H, W]``."""
        return self._walk.lagging

    @property
    def last(self) -> bool:
        """Whether the present step is the last one of its descent."""
        return self._walk.last

    @property
    def evaluating(self) -> Rows | None:
        """The noise levels of the batch's images during a model evaluation of this run, else None.
        """
        return self.call.evaluating

    def levels(
        self, rows: Sequence[Row], told: Told | None = None, boxes: Sequence[Box] | None = None
    ) -> Rows | None:
        """The noise levels of ``rows``; see :meth:`model_call.ModelCall.levels`."""
        return self.call.levels(rows, told, boxes)

    def rows(
        self,
        rows: Sequence[Row],
        tokens: int | None = None,
        told: Told | None = None,
        boxes: Sequence[Box] | None = None,
    ) -> AbstractContextManager[Rows | None]:
        """Entered by the host around every call of the model; see
        :meth:`model_call.ModelCall.rows`.
        """
        return self.call.rows(rows, tokens, told, boxes)

    def unmatched(self, why: str) -> None:
        """Called by the host in place of :meth:`rows` where it cannot tell them; see
        :meth:`model_call.ModelCall.unmatched`.
        """
        self.call.unmatched(why)

    def predict(self, x: Tensor, sigma: SigmaMap) -> Tensor:
        """The host's guided prediction with every cell at its noise level in ``sigma``."""
        if sigma.timesteps is None:
            sigma = replace(sigma, timesteps=self._walk.timesteps(sigma.levels))
        read, self._reads = self._reads, False  # a step's token maps are those of its first evaluation
        return self.call.predict(x, sigma, self._walk, read)

    def between(
        self, level: Callable[[Tensor, Tensor], Tensor], now: SigmaMap, to: SigmaMap
    ) -> SigmaMap:
        """``level(now, to)`` of every cell; see :meth:`step.Step.between`."""
        return self._walk.between(level, now, to)

    def advance(self) -> SigmaMap:
        """Read this step's token maps, move the clock, and give the sigma map of the next
        evaluation.
        """
        recorded, step = self.call.take() if self.masks.wants(self._number) else (None, 0)
        mask = self.masks.after(self._number, recorded, step)
        self._observe(None if self.last else mask)
        if self.last:
            return self._walk.end()
        to = self._walk.advance(mask)
        if not self.rehearsing:
            self._tally.add(mask.related, self._walk.furthest, known=self._number >= self.masks.mapless)
        return to

    def glance(self) -> SigmaMap | None:
        """The evaluation after the next one; see :meth:`step.Step.glance`."""
        return self._walk.glance()

    def _observe(self, mask: Mask | None) -> None:
        if not self._observers or self.rehearsing:
            return
        if mask is not None:
            mask = Mask(self.cells.pixels(mask.related), self.cells.pixels(mask.concavity))
        seen = Seen(self._number, self.evaluations, self._walk.now, mask, self.masks.maps)
        for observer in self._observers:
            observer(seen)
