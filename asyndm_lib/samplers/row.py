"""A sampler's row: what the rest of the code asks about a sampler.

It ends the sampler's own file.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor

from ..run.run import Run

Options = Mapping[str, Any]
Descents = Callable[[Options, torch.device], tuple[list[Tensor], dict[str, Any]]]
"""``(options, device)`` → the ways down, and the options that are left for our function.

``options``: the host's. A way down is ``[N + 1]`` sigmas, the last one at its end. ``device``: the
latent's.
"""

WEBUIS = ("a1111", "forge", "reforge", "classic")
"""The WebUIs that have k-diffusion's own samplers."""
EVERYWHERE = (*WEBUIS, "neo")


def given(options: Options, device: torch.device) -> tuple[list[Tensor], dict[str, Any]]:
    """One descent, over the host's ``sigmas``."""
    rest = dict(options)
    return [rest.pop("sigmas")], rest


@dataclass(frozen=True)
class Sampler:
    """A sampler of a host: our function, and the facts about it.

    ``name``: the ``__name__`` of the host's function.
    ``function``: ours, ``(run, x, **options) -> x``. Its options have the names of the host's.
    ``labels``: the names that people see, each with the options that it stands for.
    ``hosts``: the WebUIs in which the function of that name is this sampler.
    ``levels``: what the host gives. "sigmas" is a schedule. "range" is ``n``, ``sigma_min`` and
    ``sigma_max``. "timesteps" are timesteps for an ``x`` in variance-preserving scale, whose model
    gives eps.
    ``timesteps``: with "timesteps", a number of steps → the WebUIs' timesteps, descending, float64.
    The last one is stepped to and not evaluated.
    ``descents``: how the host's options become ways down.
    ``noise``: what is drawn. "independent" are the host's random numbers, "Brownian" its Brownian
    motion. "default" is k-diffusion's default noise sampler in a function that is not
    k-diffusion's. "unseeded" are PyTorch's own random numbers.
    ``schedule``: what the WebUIs take for the schedule type "automatic".
    ``discards``: whether the WebUIs leave out the last sigma but one of a longer schedule.
    ``scalars``: the host's own scalars that our function takes, where the host's rounding is to be
    met to the bit.
    ``least_steps``: the fewest steps that it can make.
    ``cfg_divisor``: what the host divides the guidance scale by; None where it leaves the scale
    alone.
    ``needs_unconditional``: whether our function asks for the unconditional prediction.
    ``begins_below_all_noise``: whether the host begins a flow a little below sigma 1, which has no
    half log SNR.
    ``not_for_flows``, ``only_for_flows``: what to tell the person where the sampler does not fit
    the model.
    ``benched``: whether ``asyndm bench`` offers it.
    """

    name: str
    function: Callable[..., Tensor]
    labels: Mapping[str, Options]
    hosts: Sequence[str] = WEBUIS
    levels: Literal["sigmas", "range", "timesteps"] = "sigmas"
    timesteps: Callable[[int], Tensor] | None = None
    descents: Descents = field(default=given)
    noise: Literal["none", "independent", "Brownian", "default", "unseeded"] = "none"
    schedule: Literal["uniform", "karras", "exponential"] = "uniform"
    discards: bool = False
    scalars: Literal["linear multistep", "exponential integrator", "alphas", "marginals"] | None = None
    least_steps: int = 1
    cfg_divisor: float | None = None
    needs_unconditional: bool = False
    begins_below_all_noise: bool = False
    not_for_flows: str | None = None
    only_for_flows: str | None = None
    benched: bool = False

    def __call__(self, run: Run, x: Tensor, **options: Any) -> Tensor:
        """The latent at the end of ``run``, from ``x [B, C, H, W]`` at its first noise level."""
        return self.function(run, x, **options)

    def takes(self, option: str) -> bool:
        """Whether our function has this option."""
        return option in inspect.signature(self.function).parameters


Labels = dict[str, tuple[Sampler, Options]]
"""Label → the sampler, and the options that the label stands for."""


def rows_in(*packages: ModuleType) -> list[Sampler]:
    """The rows of every module of ``packages``: what it names ``ROWS``."""
    found: list[Sampler] = []
    for package in packages:
        for module in iter_modules(package.__path__, f"{package.__name__}."):
            found += getattr(import_module(module.name), "ROWS", ())
    return found


def labelled(rows: Iterable[Sampler], order: Sequence[str]) -> Labels:
    """The labels of ``rows``, first those of ``order``, then all others by the alphabet."""
    labels = {label: (row, options) for row in rows for label, options in row.labels.items()}
    places = {label: place for place, label in enumerate(order)}
    return {label: labels[label] for label in sorted(labels, key=lambda label: (places.get(label, len(order)), label))}
