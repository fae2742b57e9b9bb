"""The interface between a run and the program that makes the picture."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..clock.schedule import Schedule

Progressbar = Callable[[Iterable[int]], Iterable[int]]
NoiseSampler = Callable[[Tensor, Tensor], Tensor]
"""k-diffusion's: ``(sigma, sigma_next) -> noise`` shaped like the latent."""


@dataclass(frozen=True)
class Descent:
    """A way from one noise level down to another, with a clock of its own.

    ``schedule`` has the noise levels at its evaluations. ``scalars`` are the host's own sigmas as
    it would use them itself, 0-d tensors: one per evaluation, and the one that all cells step to
    together at its end.
    """

    schedule: Schedule
    scalars: Sequence[Tensor]


@dataclass
class Host:
    """What a run needs of the program that makes the picture.

    ``model`` is what predicts. ``descents`` are the host's schedule; most samplers go down once.
    ``predict(x, sigma)`` is the host's guided prediction for the whole batch at its scalar sigma;
    in it the host enters :meth:`run.Run.rows` around every call of the model. ``step()`` is how
    many model evaluations the host has counted, for prompt editing. ``unconditional()`` is the
    unconditional part of the last prediction. ``randn_like`` are the host's random numbers.
    ``callback`` is the host's per-step callback. ``progress`` wraps the step counter. A pass
    inside ``rehearsal()`` leaves the host's random numbers and counters as they were. ``steady()``
    is whether what the model's layers compute changes with their parameters alone: a LoRA may act
    beside them.
    """

    model: nn.Module
    descents: Sequence[Descent]
    predict: Callable[[Tensor, Tensor], Tensor]
    step: Callable[[], int]
    unconditional: Callable[[], Tensor]
    randn_like: Callable[[Tensor], Tensor]
    callback: Callable[[dict[str, Any]], None] | None
    progress: Progressbar
    rehearsal: Callable[[], AbstractContextManager]
    steady: Callable[[], bool]
