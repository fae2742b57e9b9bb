"""What a sampler sees of a run: one interval of the schedule, and what an observer sees of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

from ..clock.clocks import UNEVEN, Mask
from ..clock.sigma_map import PixelMap, SigmaMap
from ..settings.settings import Settings
from .host import Host


@dataclass(frozen=True)
class Seen:
    """What an observer sees of one step.

    ``i`` is its number out of ``total``, from 0. ``sigma`` are the noise levels of its evaluation.
    ``mask`` is the mask of the advance that follows, at every pixel; None at the last step of a
    descent, from which all pixels step to the end. ``maps`` are the token maps ``[B, T, h, w]``
    that the step read, or that made a static mask, if any.
    """

    i: int
    total: int
    sigma: SigmaMap
    mask: Mask | None
    maps: Tensor | None


Observer = Callable[[Seen], None]

REMEMBERED = 4
"""How many past noise levels a step remembers."""


class Steps(Protocol):
    """What a step asks of the run that it is a part of; see :class:`run.Run`."""

    host: Host
    settings: Settings
    dtype: torch.dtype

    @property
    def last(self) -> bool:
        """Whether the present step is the last one of its descent."""

    @property
    def lagging(self) -> Tensor:
        """Pixels that are off the host's own clock, bool ``[B, 1, H, W]``."""

    @property
    def rehearsing(self) -> bool:
        """Whether this is the ordinary pass that makes a static mask."""

    def predict(self, x: Tensor, sigma: SigmaMap) -> Tensor:
        """The host's guided prediction with every cell at its noise level in ``sigma``."""

    def between(
        self, level: Callable[[Tensor, Tensor], Tensor], now: SigmaMap, to: SigmaMap
    ) -> SigmaMap:
        """The noise level ``level(now, to)`` of every cell."""

    def advance(self) -> SigmaMap:
        """The sigma map of the next evaluation, after this step's token maps moved the clock."""

    def glance(self) -> SigmaMap | None:
        """The evaluation after the next one, if the same cells stay related."""


@dataclass
class Step:
    """One interval of the schedule, from its (first) model evaluation to the next noise level.

    ``i``: counted over all descents. ``before``: the sigma maps of the last steps before it in its
    descent. ``risen_from``: where a further descent begins, the host's sigma at the end of the one
    before, else None.
    """

    run: Steps
    i: int
    sigma: SigmaMap
    before: Sequence[SigmaMap]
    risen_from: Tensor | None

    def predict(self, x: Tensor, sigma: SigmaMap | None = None) -> Tensor:
        """The host's guided prediction for ``x [B, C, H, W]``, every pixel at its level in
        ``sigma`` (the step's).
        """
        return self.run.predict(x, sigma or self.sigma)

    def between(self, level: Callable[[Tensor, Tensor], Tensor], now: SigmaMap, to: SigmaMap) -> SigmaMap:
        """An inner noise level of every pixel, ``level(now, to)``, which holds element by element.

        ``now``: of this step's evaluation. ``to``: as given by :meth:`advance`. Costs least if
        ``level`` is the same function in every step.
        """
        return self.run.between(level, now, to)

    def advance(self) -> SigmaMap:
        """Read the step's token maps and move the clock; returns the sigma map of the next
        evaluation, or the end.
        """
        return self.run.advance()

    def glance(self) -> SigmaMap | None:
        """After :meth:`advance`: the evaluation after the next one, if the same pixels stay
        related; None if none is.

        A map that changes in between changes what the pixels then really have.
        """
        return self.run.glance()

    @property
    def last(self) -> bool:
        """Whether all pixels step to the end of the descent from here."""
        return self.run.last

    def per_pixel(self, formula: Callable[..., Tensor], *sigmas: SigmaMap | PixelMap) -> Tensor:
        """``formula(*sigmas)`` for every pixel at its own noise levels.

        Pixels that were never related take the value of the same formula on the host's own scalars,
        which is, to the bit, what the host would have computed.
        """
        if all(self._rounds_alike(sigma) for sigma in sigmas):
            return formula(*(sigma.map for sigma in sigmas))
        lagging = formula(*(sigma.map for sigma in sigmas))
        own = formula(*(sigma.scalar for sigma in sigmas))
        return torch.where(self.run.lagging, lagging.to(own.dtype), own)

    def multistep(self, formula: Callable[..., Tensor], to: SigmaMap, order: int) -> Tensor:
        """``formula(sigma, to, *past)`` for every pixel, by the predictions at several levels.

        ``past``: the noise levels of the steps before, the newest first. There are ``order - 1`` of
        them, and fewer in the first steps. Two of a pixel's levels may coincide: where the formula
        divides by their difference, :meth:`if_distinct` chooses another.
        """
        levels = self.levels(to, order)
        return self.per_pixel(formula, self.sigma, to, *past_of(levels, levels))

    def levels(self, to: SigmaMap, order: int) -> list[SigmaMap]:
        """``to``, the step's noise levels, and those of up to ``order - 1`` steps before."""
        return [to, self.sigma, *self.before[::-1][: order - 1]]

    def if_distinct(
        self, levels: Sequence[Tensor], higher: Tensor, lower: Tensor | float
    ) -> Tensor:
        """``higher`` where ``levels`` all differ, ``lower`` where neighbours coincide.

        ``higher`` divides by differences of ``levels``; see :func:`coincide`.
        """
        return torch.where(coincide(levels), lower, higher)

    def _rounds_alike(self, sigma: SigmaMap | PixelMap) -> bool:
        """Whether a formula has the same bits for the scalar and for pixels that were never
        related, which hold it.

        CUDA computes every element alike. On a CPU an element's bits depend on its place in the
        tensor.
        """
        if not isinstance(sigma, SigmaMap) or not sigma.scalar.is_cuda:
            return False
        return self.run.dtype == sigma.scalar.dtype == sigma.levels.dtype == torch.float32

    def callback(
        self,
        x: Tensor,
        denoised: Tensor | None,
        sigma_hat: Tensor | None = None,
        number: int | None = None,
    ) -> None:
        """The host's callback with k-diffusion's dictionary. ``number``: if the host counts it
        otherwise.
        """
        if self.run.host.callback is not None and not self.run.rehearsing:
            sigma = self.sigma.scalar
            sigma_hat = sigma if sigma_hat is None else sigma_hat
            i = self.i if number is None else number
            state = {"x": x, "i": i, "sigma": sigma, "sigma_hat": sigma_hat, "denoised": denoised}
            self.run.host.callback(state)


def past_of(
    levels: Sequence[SigmaMap], values: Sequence[SigmaMap | PixelMap]
) -> list[SigmaMap | PixelMap]:
    """What a multistep formula goes by in the step from ``levels[1]`` to ``levels[0]``.

    ``levels`` are the noise levels of up to three predictions behind ``levels[0]``, the newest
    first, and ``values`` those or another quantity at them. The result is that of ``values[2:]``.
    A level by which a difference would count more than :data:`clocks.UNEVEN` times as much as in
    even steps is left out: the one after it stands in its place, with which it then coincides.
    """
    now, *past = values[1:]
    reached = [level.progress for level in levels if level.progress is not None]
    if not (past and reached):
        return past
    step, last, *earlier = [then - now for then, now in pairwise(reached)]
    newer = torch.where(step > UNEVEN * last, now.map, past[0].map)
    found: list[SigmaMap | PixelMap] = [PixelMap(past[0].scalar, newer)]
    if earlier:
        (before,) = earlier
        uneven = 2 * step**2 > UNEVEN * (last + before) * torch.minimum(last, before)
        found.append(PixelMap(past[1].scalar, torch.where(uneven, newer, past[1].map)))
    return found


def coincide(levels: Sequence[Tensor]) -> Tensor:
    """Whether neighbours in ``levels`` coincide, element by element; False for a single one.

    A curve may hold a pixel still for a step (piecewise linear with ``k = 1``), a host's schedule
    may repeat a level, and two levels of a dense schedule may round to one. A multistep formula
    divides by the difference of two levels, and has to do without a level that repeats another.
    """
    alike = [newer == older for newer, older in pairwise(levels)]
    return reduce(torch.logical_or, alike) if alike else torch.zeros_like(levels[0], dtype=torch.bool)
