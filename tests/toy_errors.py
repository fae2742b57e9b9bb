"""How far the multistep samplers end from a toy's exact solution, on and off the host's clock.

    python tests/toy_errors.py

The data are two points, 1 and -1. Their denoiser is known, and so is where the flow of Karras et
al. (2022) takes a pixel: its quantile among all noisy pixels stays. A line is a sampler and a
number of steps: the root mean square of the error on the host's clock, then for every curve the
largest over masks that change in every step and over the whole picture, k by k.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from stand_ins import LEVELS, make_run, uniform_sigmas

from asyndm_lib.clock.curves import CURVES
from asyndm_lib.hosts.common.own_scalars import lms_coefficients
from asyndm_lib.samplers.table import LABELS

STEPS = (10, 20, 30, 50)
CONCAVITIES = (0.25, 0.5, 0.7, 0.999, 1.0)
MASKS = ({"targets": "cat, dog", "mask_timing": "fresh"}, {"whole_picture": True})
SAMPLERS = {
    **{label: {} for label in ("Euler", "LMS", "DPM++ 2M", "DEIS", "IPNDM", "IPNDM_V", "DPM fast", "PLMS", "UniPC")},
    "DPM++ 2M SDE": {"eta": 0.0},
    "DPM++ 3M SDE": {"eta": 0.0},
}
"""The multistep samplers by label, without noise, and Euler to compare with."""


def two_points(x: Tensor, sigma: Tensor) -> Tensor:
    """The denoiser of the two points."""
    return torch.tanh(x / sigma**2)


def solution(x: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """Where the flow takes ``x`` from ``start`` to ``end``, where the points no longer overlap."""
    points = torch.special.ndtr((x - 1) / start) + torch.special.ndtr((x + 1) / start)
    quantile = torch.where(x > 0, points - 1, points)  # of its own point
    return x.sign() + end * torch.special.ndtri(quantile.clamp(1e-12, 1 - 1e-12))


def error(label: str, steps: int, **settings: object) -> float:
    """The root mean square of what a pixel misses."""
    sampler, options = LABELS[label]
    options = {**options, **SAMPLERS[label]}
    if sampler.levels == "timesteps":
        sigmas = LEVELS.t_to_sigma(torch.linspace(999, 1, steps + 1, dtype=torch.float64))
        ways = [sigmas]
    elif sampler.levels == "range":
        extent = {"sigma_min": torch.tensor(0.03).double(), "sigma_max": torch.tensor(14.6).double()}
        ways, options = sampler.descents({**options, **extent, "n": 2 * steps}, torch.device("cpu"))
        options["times"] = options["times"].double()
        ways = [torch.stack([(-t).exp() for t in options["times"]])]
    else:
        ways = [uniform_sigmas(steps)]
    if sampler.scalars == "linear multistep":
        options["coefficients"] = lms_coefficients(ways[0])
    if sampler.noise == "Brownian":
        options["noise_sampler"] = None
    start, end = ways[0][0], ways[0][-1]
    side = 4 * 8 * 12
    quantiles = (torch.arange(side, dtype=torch.float64) + 0.5) / side
    order = torch.randperm(side, generator=torch.Generator().manual_seed(0))
    x = (torch.special.ndtri(quantiles) * (1 + start**2).sqrt())[order].reshape(1, 4, 8, 12)

    def noise_in(x: Tensor, sigma: Tensor) -> Tensor:
        x = x * (1 + sigma**2).sqrt()
        return (x - two_points(x, sigma)) / sigma

    scaled = sampler.levels == "timesteps"
    given = x / (1 + start**2).sqrt() if scaled else x
    with make_run(given, ways, noise_in if scaled else two_points, **settings) as run:
        out = run.sample(sampler, given, **options)
    out = out * (1 + end**2).sqrt() if scaled else out
    return (out - solution(x, start, end)).square().mean().sqrt().item()


def main() -> None:
    for label in SAMPLERS:
        for steps in STEPS:
            line = [f"{label:12s} {steps:3d}  {error(label, steps, whole_picture=True, concavity=0.0):7.2g}"]
            for curve in CURVES:
                for k in CONCAVITIES:
                    worst = max(error(label, steps, curve=curve, concavity=k, **masks) for masks in MASKS)
                    line.append(f"{worst:7.2g}")
                line.append("|")
            print(*line, flush=True)


if __name__ == "__main__":
    main()
