"""One sampling run: it owns all state of the method, attaches to the UNet, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from contextlib import ExitStack, contextmanager, nullcontext
from copy import copy
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from ..clock.clocks import Clock, CountingClock, Relation, make_clock
from ..clock.known_levels import KnownLevels, split
from ..clock.sigma_map import SigmaMap
from ..errors import Unsupported
from ..masks.choice import Chosen
from ..masks.regions import TargetRegions, WholePicture
from ..models.parts.pixel_timesteps import PixelTimesteps
from ..prompt.prompt_targets import PromptTargets
from ..settings.settings import Settings
from .host import Descent, Host, Row
from .step import REMEMBERED, Observer, Seen, Step


class Run:
    """The method on one host call of a sampler: ``with Run(...) as run: x = run.sample(sampler, x)``.

    Hooks are on the UNet inside the ``with`` only. Raises :class:`errors.Unsupported` on entry if the
    UNet is of an unknown kind.
    """

    def __init__(
        self,
        host: Host,
        settings: Settings,
        targets: PromptTargets | None,
        x: Tensor,
        observers: Sequence[Observer] = (),
    ):
        """``targets``: None for the whole picture. ``x [B, C, H, W]``: the initial latent, for shape and kind.

        ``observers`` see every step of the pass that makes the picture.
        """
        self.host, self.settings, self._targets, self._observers = host, settings, targets, observers
        self._shape = (len(x), 1, *x.shape[-2:])
        self.dtype = x.dtype
        self._device, self._dtype = x.device, torch.promote_types(x.dtype, torch.float32)
        self._timesteps = PixelTimesteps(host.unet)
        if targets is None:
            self._regions = WholePicture(settings.concavity, self._shape, x.device)
        else:
            self._regions = TargetRegions(targets, settings, host.unet, self._shape, x.device)
        self._images = cache(partial(torch.tensor, device=x.device))  # rows → their images, sent to the device once
        self._sigma: SigmaMap | None = None
        self._recorded = self._recording = False
        self._cursor = 0
        self._stack = ExitStack()

    def __enter__(self) -> Run:
        with ExitStack() as stack:
            for hooks in (self._timesteps, self._regions):
                stack.callback(hooks.detach)
                hooks.attach()
            self._stack = stack.pop_all()
        return self

    def move(self, unet: nn.Module, targets: PromptTargets | None) -> None:
        """The host goes on with another model (a refiner): the hooks move to ``unet``.

        ``targets``: the same ones, at their positions in its text encoder. Raises :class:`Unsupported` as on entry.
        """
        self._stack.close()
        self._timesteps = PixelTimesteps(unet)
        self._regions.move(unet, targets)
        self.__enter__()

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    @torch.no_grad()
    def sample(self, sampler: Callable[..., Tensor], x: Tensor, **options: Any) -> Tensor:
        """Run ``sampler`` (of :mod:`samplers`) on ``x``; with static masks, an ordinary pass first."""
        if self._regions.rehearsing:
            with self.host.rehearsal():
                sampler(self, x, **options)
            self._regions.end_rehearsal()
        return sampler(self, x, **options)

    def __iter__(self) -> Iterator[Step]:
        """The steps of one pass, from a fresh clock."""
        places = [(descent, i) for descent in self.host.descents for i in range(descent.schedule.evaluations)]
        moves = [i + 1 < descent.schedule.evaluations for descent, i in places]
        self._regions.begin(moves, self.host.step())
        for number in self.host.progress(range(len(places))):
            descent, i = places[number]
            if i == 0:
                risen_from = self._descent.scalars[-1] if number else None
                before = ()
                self._begin(descent)
            self._number, self._i, self._recorded = number, i, not self._regions.wants(number)
            self._now = self._next or self._sigma_map(0)
            step = Step(self, number, self._now, before, risen_from if i == 0 else None)
            yield step
            before = (*before[1 - REMEMBERED :], step.sigma)

    def _begin(self, descent: Descent) -> None:
        schedule, regions = descent.schedule, self._regions
        self._descent = descent
        self._clock = make_clock(schedule.advances, self._shape, self.settings.curve, regions.concavities, self._device)
        self._known = self._known_levels() if isinstance(self._clock, CountingClock) else None
        self._next: SigmaMap | None = None
        for _ in range(schedule.lead):
            self._clock.advance(regions.latest)

    @property
    def evaluations(self) -> int:
        """How many steps a pass has."""
        return sum(descent.schedule.evaluations for descent in self.host.descents)

    @property
    def problems(self) -> Set[str]:
        """What the person should be told."""
        return self._regions.problems

    @property
    def chosen(self) -> Chosen:
        """What was chosen so far, where no targets were named. Waits for the device."""
        choice = self._regions.choice
        return [None] * self._shape[0] if choice is None else choice.words()

    @property
    def rehearsing(self) -> bool:
        """Whether this is the ordinary pass that makes a static mask."""
        return self._regions.rehearsing

    @property
    def lagging(self) -> Tensor:
        """Pixels that are off the host's own clock, bool ``[B, 1, H, W]``."""
        return self._clock.touched

    def predict(self, x: Tensor, sigma: SigmaMap) -> Tensor:
        """The host's guided prediction with every pixel at its noise level in ``sigma``."""
        if sigma.timesteps is None:
            sigma = replace(sigma, timesteps=self._descent.schedule.timestep(sigma.levels))
        self._sigma, self._cursor, self._read = sigma, 0, set()
        # A step's token maps are those of its first evaluation.
        self._recording, self._recorded = not self._recorded, True
        try:
            prediction = self.host.predict(x, sigma.scalar)
        finally:
            self._sigma = None
        if not self._cursor:
            raise Unsupported(
                "the model was called in a way that AsynDM cannot see, so its pixels had one noise level for all: "
                "another extension replaces the model; switch it or AsynDM off"
            )
        return prediction

    @property
    def evaluating(self) -> Rows | None:
        """The noise levels of the batch's images during a model evaluation of this run, else None."""
        return Rows(self._sigma.map, self.lagging) if self._sigma is not None else None

    @contextmanager
    def rows(self, count: int) -> Iterator[Rows | None]:
        """Entered by the host around a call of the UNet with the next ``count`` rows of the evaluation's batch.

        Outside an evaluation of this run (somebody else calls the model) it does nothing and gives None.
        """
        if self._sigma is None:
            yield None
            return
        start, self._cursor = self._cursor, self._cursor + count
        rows = self.host.rows[start : self._cursor]
        if len(rows) < count:
            raise Unsupported(
                f"the model was called with {self._cursor} rows where the prompts make {len(self.host.rows)}: "
                "another extension changes the batch; switch it or AsynDM off"
            )
        with self._these(rows, rows) as here:
            yield here

    @contextmanager
    def named_rows(self, rows: Sequence[Row], tokens: int) -> Iterator[Rows | None]:
        """As :meth:`rows`, by a host that names the rows of each call, which it makes as it likes.

        ``tokens``: the length of the prompts' own context, which the host may repeat.
        """
        if self._sigma is None:
            yield None
            return
        self._cursor += len(rows)
        # What somebody evaluates again in the same step, for a guidance of its own, has been read.
        unread = [(image, None if (image, part) in self._read else part) for image, part in rows]
        self._read.update(rows)
        with self._these(rows, unread, tokens) as here:
            yield here

    @contextmanager
    def _these(self, rows: Sequence[Row], unread: Sequence[Row], tokens: int | None = None) -> Iterator[Rows]:
        images = [image for image, _ in rows]
        index = self._of(images, self._sigma.index)
        recording = self._regions.record(unread, self.host.step(), tokens) if self._recording else nullcontext()
        with self._timesteps.use(self._sigma.timesteps, index, self._coming()), recording:
            yield Rows(self._of(images, self._sigma.map), self._of(images, self.lagging))

    def _of(self, images: Sequence[int], map: Tensor) -> Tensor:
        """``map [B, 1, H, W]`` of ``images``, ``[n, 1, H, W]``; of a single one without an operation."""
        return map.expand(len(images), -1, -1, -1) if len(map) == 1 else map[self._images(tuple(images))]

    def between(self, level: Callable[[Tensor, Tensor], Tensor], now: SigmaMap, to: SigmaMap) -> SigmaMap:
        """``level(now, to)`` of every pixel; see :meth:`Step.between`."""
        scalar = level(now.scalar, to.scalar)
        if len(to.levels) == 1:
            return SigmaMap(scalar, level(now.levels, to.levels.expand_as(now.levels)), now.index)
        if self._known is not None and now is self._now and to is self._next:
            known = self._known.between(self._i, level)
            if known is not None:
                sigmas, timesteps = known
                return SigmaMap(scalar, sigmas, self._clock.pair(now.index, to.index), timesteps)
        own, others, index = self._clock.pairs((now.levels, now.index), (to.levels, to.index))
        return SigmaMap(scalar, level(own, others), index)

    def advance(self) -> SigmaMap:
        """Read this step's token maps, move the clock, and give the sigma map of the next evaluation."""
        relation = self._regions.after(self._number)
        if self.last:
            self._observe(None)
            final = self._descent.scalars[-1]
            index = torch.zeros(self._shape, dtype=torch.int64, device=self._device)
            return SigmaMap(final, final.reshape(1).to(self._device, self._dtype), index)
        self._observe(relation)
        self._relation = relation
        self._clock.advance(relation)
        self._next = self._sigma_map(self._i + 1)
        return self._next

    @property
    def last(self) -> bool:
        """Whether the present step is the last one of its descent."""
        return self._i == self._descent.schedule.evaluations - 1

    def glance(self) -> SigmaMap | None:
        """See :meth:`Step.glance`."""
        if self._i + 2 >= self._descent.schedule.evaluations:
            return None
        ahead = copy(self._clock)  # an advance replaces what a clock holds
        ahead.advance(self._relation)
        return self._sigma_map(self._i + 2, ahead)

    def _observe(self, relation: Relation | None) -> None:
        if self._observers and not self.rehearsing:
            seen = Seen(self._number, self.evaluations, self._now, relation, self._regions.maps)
            for observer in self._observers:
                observer(seen)

    def _known_levels(self) -> KnownLevels:
        schedule = self._descent.schedule
        progress = self._clock.levels([schedule.lead + i for i in range(schedule.evaluations)])
        sizes = [len(levels) for levels in progress]
        sigmas, timesteps = self._levels(torch.cat(progress))
        firsts = torch.tensor([0, *accumulate(sizes[:-1])], device=self._device)
        sigmas[firsts] = self._own(self._descent.scalars[: schedule.evaluations])
        return KnownLevels(split(sigmas, timesteps, sizes), lambda sigmas: schedule.timestep(sigmas).to(self._device))

    def _levels(self, progress: Tensor) -> tuple[Tensor, Tensor]:
        schedule = self._descent.schedule
        sigmas = schedule.sigma(progress)
        return sigmas.to(self._device, self._dtype), schedule.timestep(sigmas).to(self._device)

    def _own(self, scalars: Sequence[Tensor]) -> Tensor:
        """The host's own sigmas as levels, to the bit."""
        return torch.stack([scalar.to(self._device, self._dtype) for scalar in scalars])

    def _sigma_map(self, i: int, clock: Clock | None = None) -> SigmaMap:
        clock = clock or self._clock
        if self._known is not None:
            (sigmas, timesteps), index = self._known.at(i), clock.index
        else:
            progress = clock.progress
            (sigmas, timesteps), index = self._levels(progress.levels), progress.index
            sigmas[:1] = self._own(self._descent.scalars[i : i + 1])
        return SigmaMap(self._descent.scalars[i], sigmas, index, timesteps)

    def _coming(self) -> Iterable[Tensor]:
        """The timesteps of the evaluations after the present one, as far as they are known."""
        return () if self._known is None else self._known.after(self._i, self._sigma.timesteps)


@dataclass(frozen=True)
class Rows:
    """Noise levels of the rows of one call of the UNet.

    ``sigma``: ``[n, 1, H, W]``. ``lagging``: bool ``[n, 1, H, W]``, pixels that are off the host's own clock.
    """

    sigma: Tensor
    lagging: Tensor
