"""Pictures of one prompt with seeds that nobody chose, a row per method:
``python -m asyndm_lib.evaluation.seed_sheet``

README.md shows them.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from ..demo import outputs, program
from ..demo.device import device_of
from ..demo.program import whole
from ..hosts.standalone.ldm_checkpoint import load
from ..pictures.drawing import FAINT, MARGIN, WIDTH, Canvas, scaled
from . import counter as counting
from .contact_sheet import RIGHT, made
from .counter import CounterNetwork, Found
from .engine import Batches
from .methods import CONCAVE, DM, FRESH, USERS, Method, Way
from .prompts import Prompt
from .runner import SIDE
from .subjects import EMBEDDED

PROMPT = Prompt(
    "a dog, a sandwich and a red heart",
    "dog, sandwich, red heart",
    (("dog", 1), ("sandwich", 1), ("red heart", 1)),
)
ROWS: dict[str, Method] = {"ordinary": DM, "whole picture": CONCAVE, "AsynDM": FRESH}
"""The methods, by what stands beside their rows."""

LABEL, GAP = 120, 8


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the picture, and return the exit code."""
    return program.run(lambda: _write(arguments))


def _write(arguments: Sequence[str] | None) -> None:
    """Write a picture of one prompt with the first seeds, by the ordinary way, with the whole
    picture slowed, and by AsynDM."""
    parser = program.Parser(prog="python -m asyndm_lib.evaluation.seed_sheet", description=_write.__doc__)
    add = parser.add_argument
    add("--out", type=Path, default=Path("out/seeds.jpg"), metavar="FILE")
    add("--seeds", type=whole(1, 8), default=8, metavar="N", help="the seeds 1 to N")
    add("--device", help="cpu or cuda; by default cuda where there is one")
    options = parser.parse_args(arguments)
    device = device_of(options.device)
    outputs.check_picture(options.out, "--out")
    batches, network = Batches(load(EMBEDDED.model, None, device)), counting.load(device, EMBEDDED.counter)
    draw(range(1, options.seeds + 1), USERS[0], batches, network).save(options.out, quality=88)
    print(options.out)


def draw(seeds: Sequence[int], way: Way, batches: Batches, counter: CounterNetwork) -> Image.Image:
    """The pictures of :data:`PROMPT` with ``seeds``, a column each, made with the sampler of
    ``way``. Below each stands what is missing or too much."""
    noise = batches.noise(seeds, SIDE, SIDE)
    prompts = [PROMPT] * len(seeds)
    canvas = Canvas()
    y = canvas.text(MARGIN, MARGIN, f'"{PROMPT.text}", {way.name}, CFG {way.cfg:g}', 20) + 8
    edge = (WIDTH - 2 * MARGIN - LABEL - (len(seeds) - 1) * GAP) // len(seeds)
    columns = [MARGIN + LABEL + n * (edge + GAP) for n in range(len(seeds))]
    for x, seed in zip(columns, seeds, strict=True):
        canvas.text(x, y, f"seed {seed}", 15, FAINT)
    y += 24
    for name, method in ROWS.items():
        canvas.text(MARGIN, y + edge // 2 - 9, name, 17)
        bottom = y
        for x, (pixels, found) in zip(columns, made(prompts, noise, way, method, batches, counter), strict=True):
            bottom = canvas.paste(x, y, scaled(pixels, edge))
            exact = PROMPT.shown(found).exact
            canvas.text(x, bottom + 2, canvas.fit(said(PROMPT, found), 11, edge), 11, RIGHT if exact else FAINT)
        y = bottom + 26
    return canvas.finish(y + MARGIN // 2)


def said(prompt: Prompt, found: Sequence[Found]) -> str:
    """What a picture with these things lacks of the prompt, and what it has too much; "right" where
    that is nothing."""
    wanted, there = Counter(dict(prompt.things)), counting.tally(found)
    missing = [f"no {name}" if not there[name] else f"{there[name]} {name}" for name in wanted - there]
    extra = [f"{there[name]} {name}" for name in there - wanted]
    return ", ".join(missing + extra) or "right"


if __name__ == "__main__":
    sys.exit(main())
