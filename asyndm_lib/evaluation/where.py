"""Measure where the masks lie and how far the pixels lag: ``python -m asyndm_lib.evaluation.where``

AsynDM runs on prompts of the report halves. An object's place is where the counter finds it in the
finished picture.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from ..demo import program
from ..demo.device import device_of
from ..demo.program import whole
from ..hosts.standalone.ldm_checkpoint import load
from ..run.step import Seen
from . import counter as counting
from .engine import Batches
from .methods import LAGGED, PAPER
from .prompt_sets import sets
from .runner import SIDE, jobs
from .subjects import EMBEDDED, in_sceneries

PARTS = 4
"""How many parts of the run are reported, or as many as the run has steps."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and return the exit code."""
    return program.run(lambda: _measure(arguments))


def _measure(arguments: Sequence[str] | None) -> None:
    """Print for every part of the run: how much of the picture is related, how many of the objects'
    centres are, and by how many timesteps pixels lag, in the mean and at most."""
    parser = program.Parser(prog="python -m asyndm_lib.evaluation.where", description=_measure.__doc__)
    add = parser.add_argument
    add("--prompts", type=whole(1, 50), default=4, metavar="N", help="of every set")
    add("--steps", type=whole(3, 1000), default=PAPER.steps, metavar="N", help="of the paper's sampler")
    add("--scenery", type=Path, metavar="DIR", help="the model of scenes in sceneries, in this folder")
    add("--device", help="cpu or cuda; by default cuda where there is one")
    options = parser.parse_args(arguments)
    device = device_of(options.device)
    subject = EMBEDDED if options.scenery is None else in_sceneries(options.scenery)
    batches, network = Batches(load(subject.model, None, device)), counting.load(device, subject.counter)
    work = jobs(sets(subject.kinds, options.prompts), "report", [0])
    seen: list[Seen] = []
    noise = batches.noise([job.noise for job in work], SIDE, SIDE)
    latents = batches.make(
        [job.prompt for job in work], noise, replace(PAPER, steps=options.steps), LAGGED, [seen.append]
    )
    found = [things for pictures in batches.pictures(latents) for things in counting.find(network, pictures)]
    moves = [one for one in seen if one.mask is not None]
    parts = min(PARTS, len(moves))
    for part in range(parts):
        of = moves[part * len(moves) // parts : (part + 1) * len(moves) // parts]
        related = torch.stack([one.mask.related[:, 0] for one in of]).float().cpu()
        scale = SIDE // related.shape[-1]
        last = related.shape[-1] - 1
        centres = [
            related[:, image, min(int(thing.y) // scale, last), min(int(thing.x) // scale, last)]
            for image, things in enumerate(found)
            for thing in things
        ]
        lag = torch.stack([one.sigma.timesteps[one.sigma.index] - one.sigma.timesteps[0] for one in of]).cpu()
        print(
            f"steps {of[0].i + 1}-{of[-1].i + 1}: related {related.mean():.0%} of the picture and "
            f"{torch.stack(centres).mean():.0%} of the objects' centres; {lag.mean():.0f} timesteps behind, "
            f"at most {lag.max():.0f}"
        )


if __name__ == "__main__":
    sys.exit(main())
