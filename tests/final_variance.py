"""What variance the samplers leave that draw noise, on Gaussian data, the whole picture lagging.

    python tests/final_variance.py

The data are pixels of variance 1, whose denoiser is linear, and so is every sampler then: the final
variance is the sum of the squares of what the start and each draw come to. No random number is
drawn. A row is a sampler at 20 steps on the schedule type that the WebUIs take for it: the variance
on the host's clock, that of the quadratic curve k by k, and for every curve the largest k, in
tenths, up to which the variance is within :data:`SOUND` of the host's.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import k_diffusion.sampling
from stand_ins import LEVELS, brownian, make_run, uniform_sigmas

from asyndm_lib.clock.curves import CURVES
from asyndm_lib.samplers.neo.table import LABELS as NEO
from asyndm_lib.samplers.row import Options, Sampler
from asyndm_lib.samplers.table import LABELS

STEPS = 20
SOUND = 0.1
SHOWN = (0.3, 0.5, 0.7, 1.0)
TENTHS = tuple(tenth / 10 for tenth in range(1, 11))
SAMPLERS = {
    **{
        label: LABELS[label]
        for label in (
            *("Euler a", "DPM2 a", "DPM++ 2S a", "DPM++ SDE", "DPM++ 2M SDE", "DPM++ 2M SDE Heun", "DPM++ 3M SDE"),
            *("Restart", "LCM", "DDPM"),
        )
    },
    "DDIM, eta 1": (LABELS["DDIM"][0], {"eta": 1.0}),
    **{label: NEO[label] for label in ("ER SDE", "Kohaku LoNyu Yog", "Euler a CFG++")},
}
"""The samplers that draw noise; the last ones are Forge Neo's."""


@dataclass
class Units:
    """Draws that are told apart: the nth one is 1 at the nth place, and 0 elsewhere."""

    drawn: int = 0

    def like(self, x: Tensor) -> Tensor:
        unit = torch.zeros_like(x)
        unit.view(-1)[self.drawn] = 1
        self.drawn += 1
        return unit


def ways_down(sampler: Sampler, options: Options) -> tuple[list[Tensor], dict]:
    """The descents, and the options that are left for the sampler."""
    if sampler.timesteps is not None:
        return [LEVELS.t_to_sigma(sampler.timesteps(STEPS))], dict(options)
    sigmas = uniform_sigmas(STEPS)
    if sampler.schedule != "uniform":
        schedule = getattr(k_diffusion.sampling, f"get_sigmas_{sampler.schedule}")
        sigmas = schedule(STEPS, sigmas[-2].item(), sigmas[0].item()).double()
    ways, rest = sampler.descents({**options, "sigmas": sigmas}, torch.device("cpu"))
    return [way.double() for way in ways], rest


def variance(
    name: str, curve: str = "quadratic", k: float = 0.0, motion: Callable[[Tensor], Tensor] = torch.clone
) -> float:
    """The final variance of a pixel.

    ``motion(sigma)``: where the Brownian motion is that the host's ``sigma`` asks for.
    """
    sampler, given = SAMPLERS[name]
    ways, options = ways_down(sampler, given)
    units, scaled = Units(), sampler.levels == "timesteps"
    x = units.like(torch.zeros(1, 4, 4, 8, dtype=torch.float64))
    x = x if scaled else x * (1 + ways[0][0] ** 2).sqrt()
    if sampler.noise == "Brownian":
        options["noise_sampler"] = brownian(units.like, x, motion)

    def predict(x: Tensor, sigma: Tensor) -> Tensor:
        return x * sigma / (1 + sigma**2).sqrt() if scaled else x / (1 + sigma**2)

    with make_run(x, ways, predict, whole_picture=True, curve=curve, concavity=k) as run:
        run.host.randn_like = units.like
        out = run.sample(sampler, x, **options)
    return out.square().sum().item() * (1 + ways[-1][-1].item() ** 2 if scaled else 1)


def sound_up_to(name: str, curve: str) -> float:
    """The largest concavity up to which the variance is within :data:`SOUND` of the host's."""
    own, largest = variance(name), 0.0
    for k in TENTHS:
        if abs(variance(name, curve, k) - own) > SOUND:
            break
        largest = k
    return largest


def row(name: str) -> str:
    """A sampler's row of the table in docs/SUPPORT.md."""
    variances = [variance(name), *(variance(name, k=k) for k in SHOWN)]
    cells = [*(f"{value:.2f}" for value in variances), *(f"{sound_up_to(name, curve):g}" for curve in CURVES)]
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    for name in SAMPLERS:
        print(row(name), flush=True)


if __name__ == "__main__":
    main()
