"""One sampling run: it owns all state of the method, attaches to the UNet, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .clock import CountingClock, Relation, make_clock
from .conditioning import PixelTimesteps
from .errors import Unsupported
from .maps import TokenMaps
from .masks import everywhere, relate
from .prompts import PromptTargets
from .schedule import Schedule
from .settings import Settings
from .sigma_map import PixelMap, SigmaMap

Progressbar = Callable[[Iterable[int]], Iterable[int]]
NoiseSampler = Callable[[Tensor, Tensor], Tensor]
"""k-diffusion's: ``(sigma, sigma_next) -> noise`` shaped like the latent."""
Observer = Callable[[int, SigmaMap, Relation | None], None]
"""``observer(i, sigma, relation)``: the noise levels of evaluation ``i``, and what was related in the advance
that follows it; None at the last one, from which all pixels step to the end."""


@dataclass
class Host:
    """What a run needs of the program that makes the picture.

    ``unet``: the model. ``schedule``: its noise levels at every evaluation. ``scalars``: the host's own
    sigmas as it would use them itself, 0-d tensors, one per evaluation and the final one.
    ``predict(x, sigma)``: the host's guided model call for the whole batch with its scalar sigma; the
    host enters :meth:`Run.rows` around every call of the UNet in it. ``rows``: for every row of such a
    call's full batch its image and, if conditional, its ``AND`` part (else None). ``step()``: how many
    model evaluations the host has counted, for prompt editing. ``randn_like``: the host's random
    numbers. ``callback``: the host's per-step callback. ``progress``: wraps the step counter.
    ``rehearsal``: a context in which a pass leaves the host's random numbers and counters as they were.
    """

    unet: nn.Module
    schedule: Schedule
    scalars: Sequence[Tensor]
    predict: Callable[[Tensor, Tensor], Tensor]
    rows: Sequence[tuple[int, int | None]]
    step: Callable[[], int]
    randn_like: Callable[[Tensor], Tensor]
    callback: Callable[[dict[str, Any]], None] | None
    progress: Progressbar
    rehearsal: Callable[[], Any]


@dataclass
class Step:
    """One interval of the schedule, from its model evaluation to the next noise level.

    ``sigma_next`` is there after :meth:`advance`. ``previous``: the sigma map one step before, or None.
    """

    run: Run
    i: int
    sigma: SigmaMap
    previous: SigmaMap | None
    last: bool
    sigma_next: SigmaMap | None = None

    def predict(self, x: Tensor, sigma: SigmaMap | None = None) -> Tensor:
        """The host's guided prediction for ``x [B, C, H, W]``, every pixel at its level in ``sigma`` (the step's)."""
        return self.run.predict(x, sigma or self.sigma)

    def advance(self) -> SigmaMap:
        """Read the step's token maps and move the clock; returns :attr:`sigma_next`."""
        self.sigma_next = self.run.advance()
        return self.sigma_next

    def per_pixel(self, formula: Callable[..., Tensor], *sigmas: SigmaMap | PixelMap) -> Tensor:
        """``formula(*sigmas)`` for every pixel at its own noise levels.

        Pixels that were never related take the value of the same formula on the host's own scalars,
        which is, to the bit, what the host would have computed.
        """
        lagging = formula(*(sigma.map for sigma in sigmas))
        own = formula(*(sigma.scalar for sigma in sigmas))
        return torch.where(self.run.lagging, lagging.to(own.dtype), own)

    def callback(self, x: Tensor, denoised: Tensor, sigma_hat: Tensor | None = None) -> None:
        """The host's callback with k-diffusion's dictionary."""
        if self.run.host.callback is not None and not self.run.rehearsing:
            sigma = self.sigma.scalar
            sigma_hat = sigma if sigma_hat is None else sigma_hat
            state = {"x": x, "i": self.i, "sigma": sigma, "sigma_hat": sigma_hat, "denoised": denoised}
            self.run.host.callback(state)


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
        observer: Observer | None = None,
    ):
        """``targets``: None for the whole picture. ``x [B, C, H, W]``: the initial latent, for shape and kind.

        ``observer`` sees every step of the pass that makes the picture.
        """
        self.host, self.settings, self._targets, self._observer = host, settings, targets, observer
        self.problems: set[str] = set()
        self._shape = (len(x), 1, *x.shape[-2:])
        self._device, self._dtype = x.device, torch.promote_types(x.dtype, torch.float32)
        self._timesteps = PixelTimesteps(host.unet)
        self._maps = TokenMaps(host.unet, *x.shape[-2:]) if targets else None
        self._own = [
            settings.concavity if target.concavity is None else target.concavity
            for target in (targets.targets if targets else ())
        ]
        # Apple's GPUs have no double precision.
        precision = torch.float32 if x.device.type == "mps" else torch.float64
        self._concavities = torch.tensor(self._own, dtype=precision, device=self._device)
        self._image_index: dict[tuple[int, ...], Tensor] = {}
        self._static: Relation | None = None
        self._rehearsal: _Rehearsal | None = None
        self._sigma: SigmaMap | None = None
        self._recorded = self._recording = False
        self._cursor = self._map_step = 0
        self._stack = ExitStack()

    def __enter__(self) -> Run:
        with ExitStack() as stack:
            for hooks in (self._timesteps, self._maps):
                if hooks is not None:
                    stack.callback(hooks.detach)
                    hooks.attach()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def sample(self, sampler: Callable[..., Tensor], x: Tensor, **options: Any) -> Tensor:
        """Run ``sampler`` (of :mod:`samplers`) on ``x``; with static masks, an ordinary pass first."""
        if self._maps is not None and self.settings.mask_timing == "static":
            self._rehearsal = _Rehearsal()
            with self.host.rehearsal():
                sampler(self, x, **options)
            self._static, self._rehearsal = self._rehearsal.relation(self), None
        return sampler(self, x, **options)

    def __iter__(self) -> Iterator[Step]:
        """The steps of one pass, from a fresh clock."""
        schedule = self.host.schedule
        concavities = self._own or [self.settings.concavity]
        self._clock = make_clock(schedule.advances, self._shape, self.settings.curve, concavities, self._device)
        self._tables = self._known_levels() if isinstance(self._clock, CountingClock) else None
        self._previous = self._whole()
        first = self._nothing() if self.rehearsing else self._static or self._previous
        for _ in range(schedule.lead):
            self._clock.advance(first)
        before = None
        for i in self.host.progress(range(schedule.evaluations)):
            self._i = i
            self._recorded = not self._wants_maps()
            step = Step(self, self._i, self._sigma_map(self._i), before, self._last)
            yield step
            before = step.sigma

    @property
    def rehearsing(self) -> bool:
        """Whether this is the ordinary pass that makes a static mask."""
        return self._rehearsal is not None

    @property
    def lagging(self) -> Tensor:
        """Pixels that were related in any step so far, bool ``[B, 1, H, W]``; the others are on the host's clock."""
        return self._clock.touched

    def predict(self, x: Tensor, sigma: SigmaMap) -> Tensor:
        """The host's guided prediction with every pixel at its noise level in ``sigma``."""
        if sigma.timesteps is None:
            sigma = replace(sigma, timesteps=self.host.schedule.timestep(sigma.levels))
        self._sigma, self._cursor = sigma, 0
        self._recording = not self._recorded
        try:
            prediction = self.host.predict(x, sigma.scalar)
        finally:
            self._sigma = None
            self._recorded = True
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
    def rows(self, count: int) -> Iterator[Rows]:
        """Entered by the host around a call of the UNet with the next ``count`` rows of the evaluation's batch.

        Outside an evaluation of this run (somebody else calls the model) it does nothing and gives None.
        """
        if self._sigma is None:
            yield None
            return
        rows = self.host.rows[self._cursor : self._cursor + count]
        if len(rows) < count:
            raise Unsupported(
                f"the model was called with {self._cursor + count} rows where the prompts make {len(self.host.rows)}: "
                "another extension changes the batch; switch it or AsynDM off"
            )
        self._cursor += count
        images = self._images(tuple(image for image, _ in rows))
        here = Rows(self._sigma.map[images], self.lagging[images])
        with ExitStack() as stack:
            stack.enter_context(self._timesteps.use(self._sigma.timesteps, self._sigma.index[images]))
            if self._recording:
                start, step = self._cursor - count, self.host.step()
                self._map_step = step
                kept = [start + n if part is not None else None for n, (_, part) in enumerate(rows)]
                stack.enter_context(self._maps.record(kept, partial(self._weights, step)))
            yield here

    def advance(self) -> SigmaMap:
        """Read this step's token maps, move the clock, and give the sigma map of the next evaluation."""
        present = self._read()
        if self._last:
            self._observe(None)
            final = self.host.scalars[-1]
            index = torch.zeros(self._shape, dtype=torch.int64, device=self._device)
            return SigmaMap(final, final.reshape(1).to(self._device, self._dtype), index)
        if self._rehearsal is not None:
            relation = self._nothing()
        elif self._targets is None:
            relation = self._previous
        elif self._static is not None:
            relation = self._static
        else:
            relation = present if self.settings.mask_timing == "fresh" else self._previous
        self._previous = present if present is not None else self._previous
        self._observe(relation)
        self._clock.advance(relation)
        return self._sigma_map(self._i + 1)

    def _observe(self, relation: Relation | None) -> None:
        if self._observer is not None and not self.rehearsing:
            self._observer(self._i, self._sigma_map(self._i), relation)

    @property
    def _last(self) -> bool:
        return self._i == self.host.schedule.evaluations - 1

    def _wants_maps(self) -> bool:
        """Whether some later advance depends on this step's token maps."""
        if self._targets is None or self._static is not None:
            return False
        ahead = 1 if self.settings.mask_timing == "lagged" else 0
        return self._rehearsal is not None or self._i + ahead < self.host.schedule.evaluations - 1

    def _read(self) -> Relation | None:
        """The relation that this step's token maps give, or None where none were wanted."""
        if not self._wants_maps():
            return None
        recorded = self._maps.take()
        if not recorded:
            self.problems.add(
                "no token maps could be read (another extension changes the size inside the model?), "
                "so nothing was related in some steps"
            )
            return self._nothing()
        # An image's AND parts share its targets: their weights add up to the mean over all tokens.
        images = self._images(tuple(self.host.rows[row][0] for row in recorded))
        maps = torch.stack(list(recorded.values()))
        maps = maps.new_zeros(self._shape[0], *maps.shape[1:]).index_add(0, images, maps)
        present = self._targets.present(self._map_step, self._device)
        if self._rehearsal is not None:
            self._rehearsal.add(maps, present)
            return None
        return self.relate(maps, present)

    def relate(self, maps: Tensor, present: Tensor) -> Relation:
        """Masks from token maps ``[B, T, h, w]`` of the targets that are ``present`` ``[B, T]``."""
        return relate(maps, present, self._concavities, self.settings.threshold, *self._shape[-2:])

    def _whole(self) -> Relation:
        """Before the first map exists every pixel counts as related, of the images that hold a target."""
        if self._targets is None:
            strongest = torch.full((self._shape[0],), self.settings.concavity, dtype=self._concavities.dtype)
        else:
            present = self._targets.present(self.host.step())
            strongest = torch.where(present, torch.tensor(self._own, dtype=torch.float64), -1.0).amax(dim=1)
        return everywhere(strongest.to(self._concavities), *self._shape[-2:])

    def _nothing(self) -> Relation:
        return everywhere(torch.full((self._shape[0],), -1.0, device=self._device), *self._shape[-2:])

    def _weights(self, step: int, row: int, context: int) -> Tensor:
        image, part = self.host.rows[row]
        return self._targets.weights(image, part, step, context, self._device)

    def _images(self, images: tuple[int, ...]) -> Tensor:
        if images not in self._image_index:
            self._image_index[images] = torch.tensor(images, device=self._device)
        return self._image_index[images]

    def _known_levels(self) -> list[tuple[Tensor, Tensor]]:
        """Sigmas and timesteps of all levels of all evaluations, made and sent to the device once."""
        schedule = self.host.schedule
        progress = [self._clock.levels(schedule.lead + i) for i in range(schedule.evaluations)]
        sizes = [len(levels) for levels in progress]
        sigmas, timesteps = self._levels(torch.cat(progress))
        return list(zip(sigmas.split(sizes), timesteps.split(sizes), strict=True))

    def _levels(self, progress: Tensor) -> tuple[Tensor, Tensor]:
        sigmas = self.host.schedule.sigma(progress)
        return sigmas.to(self._device, self._dtype), self.host.schedule.timestep(sigmas).to(self._device)

    def _sigma_map(self, i: int) -> SigmaMap:
        progress = self._clock.progress
        sigmas, timesteps = self._tables[i] if self._tables is not None else self._levels(progress.levels)
        return SigmaMap(self.host.scalars[i], sigmas, progress.index, timesteps)


@dataclass(frozen=True)
class Rows:
    """Noise levels of the rows of one call of the UNet.

    ``sigma``: ``[n, 1, H, W]``. ``lagging``: bool ``[n, 1, H, W]``, pixels that are off the host's own clock.
    """

    sigma: Tensor
    lagging: Tensor


class _Rehearsal:
    """Token maps gathered over an ordinary pass, for static masks."""

    def __init__(self) -> None:
        self._maps: list[Tensor] = []
        self._present: list[Tensor] = []

    def add(self, maps: Tensor, present: Tensor) -> None:
        self._maps.append(maps)
        self._present.append(present)

    def relation(self, run: Run) -> Relation:
        """The mask of each target's mean map over the steps that held it."""
        seen = torch.stack(self._present).sum(dim=0)
        mean = torch.stack(self._maps).sum(dim=0) / seen.clamp(min=1)[:, :, None, None]
        return run.relate(mean, seen > 0)
