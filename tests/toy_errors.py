"""How far samplers end from a toy's exact solution, on and off the host's clock.

    python tests/toy_errors.py [SAMPLER …]

The data are two clouds around 1 and -1. Their denoiser is known, and so is where the flow of Karras
et al. (2022) takes a pixel: its quantile among all noisy pixels stays. Noise is left out.

A line is a sampler and a number of steps, then two numbers on the host's clock, of as many steps
and of half as many, then for every curve the larger of masks that change in every step and of the
whole picture, k by k. The first line is what pixels miss, the second what errors of the model's eps
move them, as a multiple of these errors.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from stand_ins import LEVELS, make_run, uniform_sigmas

from asyndm_lib.clock.curves import CURVES
from asyndm_lib.hosts.common.own_scalars import lms_coefficients
from asyndm_lib.samplers.neo.table import LABELS as NEO
from asyndm_lib.samplers.neo.unipc import LAST_SIGMA
from asyndm_lib.samplers.table import LABELS

STEPS = (10, 20, 30, 50)
CONCAVITIES = (0.3, 0.5, 0.7, 0.9, 0.999, 1.0)
MASKS = ({"targets": "cat, dog", "mask_timing": "fresh"}, {"whole_picture": True})
MULTISTEP = (
    *("LMS", "DPM++ 2M", "DPM++ 2M SDE", "DPM++ 2M SDE Heun", "DPM++ 3M SDE", "PLMS", "UniPC"),
    *("IPNDM", "IPNDM_V", "DEIS"),
)
NEO_MULTISTEP = ("DPM++ 2M SDE", "DPM++ 3M SDE", "ER SDE", "Res Multistep", "UniPC", "DPM++ 2M CFG++", "LMS")
SAMPLERS = {
    **{label: LABELS[label] for label in (*MULTISTEP, "Euler", "DPM2", "DPM fast", "HeunPP2")},
    **{f"Neo's {label}": NEO[label] for label in NEO_MULTISTEP},
}
"""The multistep samplers, and some others to compare with."""
SPREAD = 0.25
"""The standard deviation of a cloud."""
WRONG = 0.02
"""How large the errors of the model's eps are."""

Denoiser = Callable[[Tensor, Tensor], Tensor]


def two_clouds(x: Tensor, sigma: Tensor) -> Tensor:
    """The denoiser of the two clouds."""
    variance = SPREAD**2 + sigma**2
    middle = torch.tanh(x / variance)
    return middle + SPREAD**2 / variance * (x - middle)


def below(x: Tensor, sigma: Tensor) -> Tensor:
    """The share of noisy pixels that are less than ``x``."""
    width = (SPREAD**2 + sigma**2).sqrt()
    return (torch.special.ndtr((x - 1) / width) + torch.special.ndtr((x + 1) / width)) / 2


def quantile(share: Tensor, sigma: Tensor) -> Tensor:
    """The inverse of :func:`below`, for shares of at most a half."""
    low, high = torch.full_like(share, -9) * (1 + sigma), torch.zeros_like(share)
    for _ in range(80):
        middle = (low + high) / 2
        less = below(middle, sigma) < share
        low, high = torch.where(less, middle, low), torch.where(less, high, middle)
    return (low + high) / 2


def noisy_pixels(sigma: Tensor) -> Tensor:
    """Noisy pixels at evenly spaced quantiles, shuffled, ``[1, 4, 8, 12]``."""
    half = 2 * 8 * 12
    lower = quantile((torch.arange(half, dtype=torch.float64) + 0.5) / (2 * half), sigma)
    order = torch.randperm(2 * half, generator=torch.Generator().manual_seed(0))
    return torch.cat([lower, -lower])[order].reshape(1, 4, 8, 12)


def solution(x: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """Where the flow takes ``x`` from ``start`` to ``end``."""
    return -x.sign() * quantile(below(-x.abs(), start), end)


def sampled(name: str, steps: int, denoiser: Denoiser = two_clouds, **settings: object) -> tuple[Tensor, Tensor]:
    """Where a run ends, and where the flow does."""
    sampler, options = SAMPLERS[name]
    options = dict(options)
    if sampler.levels == "timesteps":
        ways = [LEVELS.t_to_sigma(torch.linspace(999, 1, steps + 1, dtype=torch.float64))]
    elif sampler.levels == "range":
        extent = {"sigma_min": torch.tensor(0.03).double(), "sigma_max": torch.tensor(14.6).double()}
        ways, options = sampler.descents({**options, **extent, "n": steps}, torch.device("cpu"))
        options["times"] = options["times"].double()
        ways = [torch.stack([(-t).exp() for t in options["times"]])]
    else:
        ways = [uniform_sigmas(steps)]
    if sampler.name == "sample_unipc":
        ways[0][-1] = LAST_SIGMA
    if sampler.scalars == "linear multistep":
        options["coefficients"] = lms_coefficients(ways[0])
    if sampler.noise == "Brownian":
        options["noise_sampler"] = None
    for option in ("eta", "s_noise"):
        if sampler.takes(option):
            options[option] = 0.0
    start, end = ways[0][0], ways[0][-1]
    x = noisy_pixels(start)

    def noise_in(x: Tensor, sigma: Tensor) -> Tensor:
        x = x * (1 + sigma**2).sqrt()
        return (x - denoiser(x, sigma)) / sigma

    scaled = sampler.levels == "timesteps"
    given = x / (1 + start**2).sqrt() if scaled else x
    with make_run(given, ways, noise_in if scaled else denoiser, **settings) as run:
        out = run.sample(sampler, given, **options)
    return out * (1 + end**2).sqrt() if scaled else out, solution(x, start, end)


def missed(name: str, steps: int, **settings: object) -> tuple[float, float]:
    """Two root mean squares over the pixels at the end of a run.

    The first is of what they miss. The second is of what errors of the model's eps, other ones in
    every evaluation, move them, as a multiple of these errors.
    """
    random = torch.Generator().manual_seed(3)

    def mistaken(x: Tensor, sigma: Tensor) -> Tensor:
        return two_clouds(x, sigma) + WRONG * sigma * torch.randn(x.shape, generator=random, dtype=x.dtype)

    out, there = sampled(name, steps, **settings)
    moved, _ = sampled(name, steps, mistaken, **settings)
    return _root_mean_square(out - there), _root_mean_square(moved - out) / WRONG


def _root_mean_square(x: Tensor) -> float:
    return x.square().mean().sqrt().item()


@cache
def on_the_hosts_clock(name: str, steps: int) -> tuple[float, float]:
    return missed(name, steps, whole_picture=True, concavity=0.0)


def halved(name: str, steps: int) -> int:
    """How many evaluations the sampler makes in half as many steps."""
    if name != "DPM fast":
        return max(steps // 2, 3)
    more = steps // 3 + 1  # steps of up to three evaluations each, and fewer in the last
    return 3 * (more // 2 - 1) + (steps % 3 or 3)


def yardsticks(name: str, steps: int) -> list[float]:
    """What the host itself has with as many or half as many steps, whichever is more.

    No curve lets a pixel make a step of more than ``1 + k`` of the schedule's.
    """
    found = (on_the_hosts_clock(name, count) for count in (steps, halved(name, steps)))
    return [max(pair) for pair in zip(*found, strict=True)]


def main() -> None:
    for name in sys.argv[1:] or SAMPLERS:
        for steps in STEPS:
            lines = [on_the_hosts_clock(name, steps), on_the_hosts_clock(name, halved(name, steps))]
            for curve in CURVES:
                for k in CONCAVITIES:
                    found = [missed(name, steps, curve=curve, concavity=k, **masks) for masks in MASKS]
                    lines.append(tuple(max(pair) for pair in zip(*found, strict=True)))
            for label, own in zip(("misses", "moved"), zip(*lines, strict=True), strict=True):
                print(f"{name:20s} {steps:3d} {label:6s}", *(f"{value:8.2g}" for value in own), flush=True)


if __name__ == "__main__":
    main()
