"""A pass that leaves no trace in the host."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ...models.parts.patching import replaced


@contextmanager
def rehearsal(p: Any, model: Any) -> Iterator[None]:
    """A pass that leaves the random numbers and the model calls counted by the host as they were.

    ``model``: its CFG denoiser. The pass stays on the UNet that it begins with, which the one after
    it begins with too.
    """
    rng, step = p.rng, model.step
    while not hasattr(rng, "generators"):  # ControlNet's noise modifiers wrap the host's
        rng = rng.rng
    states = [_generator_state(generator) for generator in rng.generators]
    with replaced(p, "refiner_checkpoint_info", None):
        yield
    model.step = step
    for restore in states:
        restore()


def _generator_state(generator: Any) -> Callable[[], None]:
    if isinstance(generator, torch.Generator):
        return functools.partial(generator.set_state, generator.get_state())
    return functools.partial(generator.__dict__.update, copy.deepcopy(generator.__dict__))
