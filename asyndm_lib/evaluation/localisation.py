"""Measure which token maps of the embedded transformer lie where the objects are: ``python -m
asyndm_lib.evaluation.localisation --sprites FILE``

Pictures of prompts of two different things are made by Euler steps. A thing's place is where its
emoji is found in the finished picture. The maps of every rule and of every run of blocks are
compared with it, from a third of the steps on.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import combinations, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..demo import TRANSFORMER, outputs, program
from ..demo.device import device_of
from ..demo.program import number, whole
from ..demo.training import sprites
from ..demo.training.concepts import CONCEPTS
from ..demo.training.evaluate import Finder, two_object_prompts
from ..demo.training.sampling import word_positions
from ..demo.training.training import contact_sheet
from ..demo.training.vocabulary import CONTEXT_LENGTH, WordEncoder
from ..errors import AsynDMError
from ..hosts.standalone.flow import FlowDenoiser
from ..hosts.standalone.ldm_checkpoint import load
from ..models import sd3
from ..models.family import Row, TokenMaps
from . import counter as counting
from . import table
from .engine import Batches
from .prompts import Prompt
from .runner import SIDE

FILE = Path(__file__).parent / "localisation.json"
"""The committed results."""

TWICE = 2.0
"""How much higher a map is to be inside its object than outside."""


class Source(NamedTuple):
    """Where a map is from: a rule of :data:`models.sd3.RULES`, and the first and last block whose
    mean it is."""

    rule: str
    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.rule}, block{'' if self.first == self.last else 's'} {self.first}" + (
            "" if self.first == self.last else f"-{self.last}"
        )


class Fit(NamedTuple):
    """How one target's map fits its object, over the steps.

    ``ratio`` and ``lowest``: inside over outside, the mean of the steps and the lowest. ``held``
    and ``spilt``: which share of the object, and of what is not it, a mask at the map's mean holds.
    """

    ratio: float
    lowest: float
    held: float
    spilt: float


class Readers:
    """Token maps of every rule and block, read in the same calls of the model."""

    def __init__(self, model: torch.nn.Module, size: tuple[int, int]):
        depth = len(model.joint_blocks)
        self.blocks = range(depth - 1)  # behind the last one nobody reads the text
        self._readers: dict[tuple[str, int], TokenMaps] = {
            (rule, block): make(sd3.joint_layers(model, size, [(block + 0.5) / depth]))
            for rule, make in sd3.RULES.items()
            for block in self.blocks
        }

    def attached(self) -> ExitStack:
        """The hooks are on the model inside the ``with``."""
        stack = ExitStack()
        for reader in self._readers.values():
            stack.callback(reader.detach)
            reader.attach()
        return stack

    def record(self, rows: Sequence[Row | None], weights: Tensor) -> ExitStack:
        """Read ``rows`` inside the ``with``. ``weights``: ``[images, tokens, targets]``."""
        stack = ExitStack()
        for reader in self._readers.values():
            stack.enter_context(reader.record(rows, lambda row, context: weights[row[0]]))
        return stack

    def take(self) -> dict[tuple[str, int], Tensor]:
        """The maps ``[images, targets, h, w]``."""
        return {source: reader.take().maps.float().cpu() for source, reader in self._readers.items()}

    def sources(self) -> Iterator[Source]:
        """Every rule with every run of blocks."""
        for rule in sd3.RULES:
            for block in self.blocks:
                yield Source(rule, block, block)
            for first, last in combinations(self.blocks, 2):
                yield Source(rule, first, last)


def fit(maps: Sequence[Tensor], own: Tensor) -> Fit:
    """How maps ``[h, w]`` of the steps fit an object that covers a share ``own [h, w]`` of each
    cell."""
    ratios, held, spilt = [], [], []
    other = 1 - own
    for map in maps:
        inside, outside = (float((map * part).sum() / part.sum()) for part in (own, other))
        ratios.append(inside / max(outside, 1e-9))
        mask = (map >= map.mean()).float()
        held.append(float((mask * own).sum() / own.sum()))
        spilt.append(float((mask * other).sum() / other.sum()))
    return Fit(float(np.mean(ratios)), float(np.min(ratios)), float(np.mean(held)), float(np.mean(spilt)))


@torch.no_grad()
def made(
    batches: Batches, prompts: Sequence[tuple[str, int, int]], steps: int, cfg: float, seed: int, encode: WordEncoder
) -> tuple[Tensor, list[dict[Source, Tensor]]]:
    """Pictures ``[n, 3, H, W]``, and every step's maps from a third of the steps on, ``[n, 2, h,
    w]`` by source."""
    model, device, n = batches.checkpoint.diffusion_model, batches.device, len(prompts)
    schedule = FlowDenoiser(batches, batches.checkpoint.shift, device)
    weights = torch.zeros(n, CONTEXT_LENGTH, 2, device=device)
    for row, (text, *pair) in enumerate(prompts):
        for target, concept in enumerate(pair):
            places = word_positions(text, CONCEPTS[concept].name, encode)
            weights[row, places, target] = 1 / len(places)
    told, empty = (batches.conditioning(texts) for texts in ([text for text, *_ in prompts], [""]))
    told = {name: torch.cat([value, empty[name].expand_as(value)]) for name, value in told.items()}
    rows: list[Row | None] = [*((image, 0) for image in range(n)), *[None] * n]
    noise = batches.noise(range(seed, seed + n), SIDE, SIDE)
    x = noise.like(told["context"])
    readers = Readers(model, (x.shape[2] // model.patch_size, x.shape[3] // model.patch_size))
    kept: list[dict[Source, Tensor]] = []
    with readers.attached():
        for step, (sigma, sigma_next) in enumerate(pairwise(schedule.get_sigmas(steps))):
            with readers.record(rows, weights):
                denoised = batches.denoised(torch.cat([x, x]), sigma, told)
            maps = readers.take()
            if step >= steps // 3:
                blocks = {rule: torch.stack([maps[rule, block] for block in readers.blocks]) for rule in sd3.RULES}
                kept.append({s: blocks[s.rule][s.first : s.last + 1].mean(0) for s in readers.sources()})
            conditional, unconditional = denoised.chunk(2)
            guided = unconditional + (conditional - unconditional) * cfg
            x = x + (x - guided) / sigma * (sigma_next - sigma)
    return torch.cat(list(batches.pictures(x))), kept


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, or read what was measured, and return the exit code."""
    return program.run(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> None:
    """Print how many pictures are right, and a row for every rule and run of blocks."""
    parser = program.Parser(prog="python -m asyndm_lib.evaluation.localisation", description=_run.__doc__)
    add = parser.add_argument
    add("--sprites", type=Path, metavar="FILE", help="of the stage sprites; without it only the table")
    add("--results", type=Path, default=FILE, metavar="FILE", help="where the results are")
    add("--into", type=Path, metavar="README", help="also put the table into this file")
    add("--checkpoint", type=Path, default=TRANSFORMER, metavar="FILE", help="the transformer")
    add("--prompts", type=whole(1, 10**6), default=100, metavar="N", help="how many")
    add("--steps", type=whole(3, 1000), default=28, metavar="N", help="of Euler")
    add("--cfg", type=number(0, 100), default=4.5, metavar="SCALE", help="classifier-free guidance scale")
    add("--batch", type=whole(1, 4096), default=25, metavar="N", help="pictures at once")
    add("--sheet", type=Path, metavar="FILE", help="also write the pictures here, ten in a row")
    add("--device", help="cpu or cuda; by default cuda where there is one")
    options = parser.parse_args(arguments)
    if options.sprites is None and (idle := options.given.keys() - {"results", "into"}):
        raise AsynDMError(f"{options.given[min(idle)]} needs --sprites: without it only the table is printed")
    if options.into is not None:
        table.marked(options.into, options.results.stem)
    if options.sprites is not None:
        _measure(options)
    try:
        text = markdown(json.loads(options.results.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StopIteration, RecursionError) as error:
        raise AsynDMError(f"{options.results} is not a results file: {error}") from error
    if options.into is not None:
        table.insert(options.into, text, options.results.stem)
    print(text)


def markdown(results: dict[str, dict]) -> str:
    """The results of :func:`main` as a sentence and a table."""
    pictures, maps = results["pictures"], results["maps"]
    rows = [
        [
            name,
            f"{line['twice as high inside']:.0%}",
            f"{line['in every step']:.0%}",
            f"{line['median ratio']:.1f}",
            f"{line['held']:.0%}",
            f"{line['spilt']:.0%}",
        ]
        for name, line in maps.items()
    ]
    targets = next(iter(maps.values()))["targets"]
    said = (
        f"Of {pictures['prompts']} pictures of two things {pictures['both']:.0%} show both, "
        f"{pictures['both and nothing else']:.0%} both and nothing else. {targets} targets:"
    )
    head = ["maps", "twice as high inside", "in every step", "inside / outside, median", "of the object", "of the rest"]
    return f"{said}\n\n{table.lines(head, rows)}"


def _measure(options: argparse.Namespace) -> None:
    outputs.check_file(options.results, "--results")
    if options.sheet is not None:
        outputs.check_picture(options.sheet, "--sheet")
    device = device_of(options.device)
    batches, network = Batches(load(options.checkpoint, None, device)), counting.load(device)
    if not batches.checkpoint.flow:
        raise AsynDMError(f"--checkpoint {options.checkpoint} is no transformer")
    finder, encode = Finder(sprites.load(options.sprites)), WordEncoder(TRANSFORMER.parent / "tokenizer")
    prompts = two_object_prompts(options.prompts, 0)
    fits: dict[Source, list[Fit]] = {}
    both = exact = 0
    shown: list[Tensor] = []
    for start in range(0, len(prompts), options.batch):
        part = prompts[start : start + options.batch]
        pictures, steps = made(batches, part, options.steps, options.cfg, start, encode)
        shown.append(pictures.cpu())
        for row, (text, *pair) in enumerate(part):
            things = tuple((CONCEPTS[concept].name, 1) for concept in pair)
            right = Prompt(text, "", things).shown(counting.find(network, pictures[row : row + 1])[0])
            both, exact = both + (right.right == len(pair)), exact + right.exact
            regions = finder(pictures[row])
            masks = [np.any([region.mask for region in regions if region.concept == concept], 0) for concept in pair]
            if not all(np.any(mask) for mask in masks):
                continue
            for target, mask in enumerate(masks):
                for source in steps[0]:
                    maps = [step[source][row, target] for step in steps]
                    own = F.adaptive_avg_pool2d(torch.from_numpy(mask)[None].float(), maps[0].shape)[0]
                    fits.setdefault(source, []).append(fit(maps, own))
    lines = {str(source): _summary(found) for source, found in fits.items()}
    rights = {"prompts": len(prompts), "both": both / len(prompts), "both and nothing else": exact / len(prompts)}
    if options.sheet is not None:
        contact_sheet(torch.cat(shown), 10, options.sheet)
    report = {"pictures": rights, "maps": lines}
    options.results.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def _summary(fits: Sequence[Fit]) -> dict[str, float]:
    ratios, lowest, held, spilt = (np.array(values) for values in zip(*fits, strict=True))
    return {
        "targets": len(fits),
        "twice as high inside": float((ratios >= TWICE).mean()),
        "in every step": float((lowest >= TWICE).mean()),
        "median ratio": float(np.median(ratios)),
        "held": float(held.mean()),
        "spilt": float(spilt.mean()),
    }


if __name__ == "__main__":
    sys.exit(main())
