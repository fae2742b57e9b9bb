"""The contact sheet: pictures of the same prompt and seed side by side, a column per method."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from ..pictures.drawing import FAINT, MARGIN, WIDTH, Canvas, scaled
from . import counter as counting
from .counter import CounterNetwork, Found
from .engine import Batches, Noise
from .methods import Method, Way
from .prompt_sets import PromptSet
from .prompts import Prompt
from .runner import SIDE, jobs

GAP = 10
RIGHT = (24, 132, 70)
"""The colour of what an exact picture shows."""


def made(
    prompts: Sequence[Prompt], noise: Noise, way: Way, method: Method, batches: Batches, counter: CounterNetwork
) -> list[tuple[np.ndarray, list[Found]]]:
    """The prompts' pictures by ``method``, each ``[H, W, 3]`` in bytes with what the counter finds
    in it."""
    pictures = torch.cat(list(batches.pictures(batches.make(prompts, noise, way, method))))
    pixels = ((pictures + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return list(zip(pixels, counting.find(counter, pictures), strict=True))


def draw(
    sets: Sequence[PromptSet], methods: Sequence[Method], way: Way, rows: int, batches: Batches, counter: CounterNetwork
) -> Image.Image:
    """The contact sheet of the first ``rows`` prompts of every set's report half, each with its
    first seed.

    The pictures are made with the sampler of ``way``.
    """
    work = [job for job in jobs(sets, "report", [0]) if job.number < rows]
    prompts = [job.prompt for job in work]
    noise = batches.noise([job.noise for job in work], SIDE, SIDE)
    columns = [made(prompts, noise, way, method, batches, counter) for method in methods]
    canvas = Canvas()
    y = canvas.text(MARGIN, MARGIN, f"{way.name}, CFG {way.cfg:g}; below each picture what the counter found", 22) + 12
    edge = (WIDTH - 2 * MARGIN - (len(methods) - 1) * GAP) // len(methods)
    for n, method in enumerate(methods):
        canvas.text(MARGIN + n * (edge + GAP), y, canvas.fit(method.name, 16, edge), 16)
    y += 28
    for row, job in enumerate(work):
        y = canvas.text(MARGIN, y, f"{job.set}: {job.prompt.text}", 17) + 4
        bottom = y
        for n, column in enumerate(columns):
            pixels, found = column[row]
            x = MARGIN + n * (edge + GAP)
            bottom = canvas.paste(x, y, scaled(pixels, edge))
            names = ", ".join(f"{count} {name}" for name, count in sorted(counting.tally(found).items())) or "nothing"
            exact = job.prompt.shown(found).exact
            canvas.text(x, bottom + 3, canvas.fit(names, 13, edge), 13, RIGHT if exact else FAINT)
        y = bottom + 30
    return canvas.finish(y + MARGIN)
