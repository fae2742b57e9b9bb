"""The interface between a run and the program that makes the picture."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..clock.schedule import AuthorsGrid, Schedule

Progressbar = Callable[[Iterable[int]], Iterable[int]]
NoiseSampler = Callable[[Tensor, Tensor], Tensor]
"""k-diffusion's: ``(sigma, sigma_next) -> noise`` shaped like the latent."""
Row = tuple[int, int | None]
"""What a row of the host's batch is: its image and, if conditional, its ``AND`` part (else None)."""


@dataclass(frozen=True)
class Descent:
    """A way from one noise level down to another, with a clock of its own.

    ``schedule``: the noise levels at its evaluations. ``scalars``: the host's own sigmas as it would use
    them itself, 0-d tensors, one per evaluation and the one that all pixels step to together at its end.
    """

    schedule: Schedule | AuthorsGrid
    scalars: Sequence[Tensor]


@dataclass
class Host:
    """What a run needs of the program that makes the picture.

    ``unet``: the model. ``descents``: the host's schedule; most samplers go down once.
    ``predict(x, sigma)``: the host's guided model call for the whole batch with its scalar sigma; the
    host enters :meth:`Run.rows` around every call of the UNet in it. ``rows``: for every row of such a
    call's full batch its image and, if conditional, its ``AND`` part (else None); empty for a host that enters
    :meth:`Run.named_rows` instead. ``step()``: how many
    model evaluations the host has counted, for prompt editing. ``unconditional()``: the
    unconditional part of the last prediction. ``randn_like``: the host's random numbers. ``callback``: the
    host's per-step callback. ``progress``: wraps the step counter.
    ``rehearsal``: a context in which a pass leaves the host's random numbers and counters as they were.
    """

    unet: nn.Module
    descents: Sequence[Descent]
    predict: Callable[[Tensor, Tensor], Tensor]
    rows: Sequence[Row]
    step: Callable[[], int]
    unconditional: Callable[[], Tensor]
    randn_like: Callable[[Tensor], Tensor]
    callback: Callable[[dict[str, Any]], None] | None
    progress: Progressbar
    rehearsal: Callable[[], AbstractContextManager]
