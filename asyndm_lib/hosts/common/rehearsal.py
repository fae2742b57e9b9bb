"""A pass that leaves no trace in the host."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from modules import shared

from ...models.parts.patching import replaced, watched
from .others_counts import Counts


@contextmanager
def rehearsal(p: Any, model: Any, device: torch.device, others: Iterable[Any]) -> Iterator[None]:
    """A pass that leaves the random numbers as they were, and what the host and other extensions
    count.

    ``model``: its CFG denoiser. ``others``: the functions of other extensions that count, see
    :mod:`others_counts`. PyTorch's own random numbers, those of ``device`` too, are other
    extensions' and, in inpainting, some hosts'. The pass stays on the UNet that it begins with,
    which the one after it begins with too.
    """
    restore, counts, devices = _counters(p, model), Counts(others), [device] if device.type == "cuda" else []
    with (
        torch.random.fork_rng(devices),
        replaced(p, "refiner_checkpoint_info", None),
        watched(model, lambda output: counts.look()),
    ):
        yield
    restore()
    counts.restore()


def rewinding(p: Any, model: Any, device: torch.device) -> Callable[[], None]:
    """What puts the host back to where it is now, for a pass from the start.

    ``model``: its CFG denoiser. These are the counters, the picture's random numbers, and
    PyTorch's, those of ``device`` too.
    """
    restore = _counters(p, model)
    pytorchs = [(torch.set_rng_state, torch.get_rng_state())]
    if device.type == "cuda":
        pytorchs.append((functools.partial(torch.cuda.set_rng_state, device=device), torch.cuda.get_rng_state(device)))

    def rewind() -> None:
        restore()
        for set_state, state in pytorchs:
            set_state(state)

    return rewind


def _counters(p: Any, model: Any) -> Callable[[], None]:
    """What puts the host's counters and its pictures' random numbers back to where they are now."""
    step, sampling_step, restore_numbers = model.step, shared.state.sampling_step, _random_numbers(p)

    def restore() -> None:
        model.step, shared.state.sampling_step = step, sampling_step
        restore_numbers()

    return restore


def _random_numbers(p: Any) -> Callable[[], None]:
    """What puts the random numbers of ``p``'s pictures back to where they are now."""
    rng = p.rng
    while not hasattr(rng, "generators"):  # ControlNet's noise modifiers wrap the host's
        rng = rng.rng
    states = [_generator_state(generator) for generator in rng.generators]

    def restore() -> None:
        for state in states:
            state()

    return restore


def _generator_state(generator: Any) -> Callable[[], None]:
    if isinstance(generator, torch.Generator):
        return functools.partial(generator.set_state, generator.get_state())
    return functools.partial(generator.__dict__.update, copy.deepcopy(generator.__dict__))
