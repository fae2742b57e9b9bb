"""The ``context`` command: how well a model bears a context that is ahead.

Pictures of the model's own are noised, their targets to a timestep and all else to one that lies a
lead before it, as in a run whose masks are right. The error of the prediction inside the targets,
and in the rest, is compared with that where the picture is at one level.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from .. import models
from ..clock.cells import Cells
from ..demo import EMBEDDED
from ..demo.device import device_of
from ..errors import AsynDMError
from ..hosts.standalone.embedded import Request
from ..hosts.standalone.ldm_checkpoint import load
from ..masks.threshold import relate_alike
from ..models.parts.resampling import Resize
from ..run.step import Seen
from ..settings.settings import Settings
from . import context_plot, prompt_files, subjects, table
from .engine import Batches
from .lead import Levels, Scenes, predicted
from .methods import FLOW_USERS, USERS, Method, Way
from .prompt_sets import PLAIN, sets
from .prompts import Prompt
from .regions import Control
from .runner import SIDE

TIMESTEPS = (900, 800, 700, 500, 300)
LEADS = (25, 50, 100, 200)
LATE = 0.5
"""The share of the steps from which on token maps make the masks."""

SIDE_OF_OTHERS = 512
"""The edge in pixels of pictures of a model that is not embedded."""

ON_GPU, ON_CPU = 32, 8
"""How many pictures are made at once."""

NOTHING_LAGS = Method("DM", Settings(mask_timing="fresh"), Control(first=False, stop=0.0))
"""The ordinary picture, during which token maps are read."""


@dataclass(frozen=True)
class Asked:
    """How the model is asked. ``caption``: "right", "another's" or "none". ``per_cell``: whether it
    is told every cell's timestep, and not the rest's for all."""

    caption: str = "right"
    per_cell: bool = True


ASKED = {
    "time per pixel": Asked(),
    "one time for all": Asked(per_cell=False),
    "another's caption": Asked("another's"),
    "no caption": Asked("none"),
}
"""What is compared, by name. The first is the method."""

CAPTIONS = {name: asked for name, asked in ASKED.items() if asked.per_cell}
"""What is asked of pictures at one level too."""


@dataclass(frozen=True)
class Error:
    """Mean squared errors of a prediction, inside the ``targets`` and in the ``rest``.

    The targets are at ``timestep``, the rest ``lead`` timesteps ahead. The unit is the noise's.
    ``asked`` is a name of :data:`ASKED`.
    """

    timestep: int
    lead: int
    asked: str
    targets: float
    rest: float


Errors = dict[tuple[int, int, str], Error]
"""By timestep, lead and what was asked."""


def context(options: argparse.Namespace) -> None:
    """Do what ``options`` of :mod:`asyndm_lib.cli` ask for.

    Raises :class:`AsynDMError` for anything that is wrong with them.
    """
    device, kinds, side = device_of(options.device), PLAIN, SIDE
    path = options.checkpoint or EMBEDDED[options.model]
    if options.scenery is not None:
        subject = subjects.in_sceneries(options.scenery)
        path, kinds = subject.model, subject.kinds
    elif options.checkpoint is not None:
        side = SIDE_OF_OTHERS
    batches = Batches(load(path, options.config, device))
    usual = FLOW_USERS[1] if batches.checkpoint.flow else USERS[0]
    asked = {name: getattr(options, name) for name in ("sampler", "schedule", "steps", "cfg")}
    way = replace(usual, **{name: value for name, value in asked.items() if value is not None})
    width, height = options.width or side, options.height or side
    batches.check(Request("", "", (), way.sampler, way.schedule, way.steps, way.cfg, width, height))
    prompts = prompt_files.read(options.prompts) if options.prompts is not None else [
        prompt for row in zip(*(one.tuning for one in sets(kinds)), strict=True) for prompt in row
    ]
    prompts = [prompts[number % len(prompts)] for number in range(options.pictures)]
    work = Work(options.folder, {
        "model": path.name,
        "weights": _digest(path),
        "sampler": [way.sampler, way.schedule, way.steps, way.cfg],
        "size": [width, height],
        "prompts": [[prompt.text, prompt.targets] for prompt in prompts],
    })
    size = options.batch or (ON_GPU if device.type == "cuda" else ON_CPU)
    work.make(batches, prompts, way, size)
    errors = work.measure(batches, prompts, size)
    text, plot = markdown(errors), options.folder / "context.png"
    context_plot.draw(_curves(errors), path.name, LEADS).save(plot)
    save(options.folder / "context.json", work.question, errors)
    print(text)
    print(plot)


class Work:
    """A folder with the pictures and errors of one question; what is there is not made again."""

    def __init__(self, folder: Path, question: dict[str, Any]):
        """Raises :class:`AsynDMError` if the folder holds the work of another question."""
        self.folder, self.question = folder, question
        folder.mkdir(parents=True, exist_ok=True)
        manifest = folder / "question.json"
        if not manifest.exists():
            manifest.write_text(json.dumps(question, indent=1) + "\n", encoding="utf-8")
        try:
            known = json.loads(manifest.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise AsynDMError(f"{manifest} cannot be read ({error}); give another --folder") from error
        if known != question:
            other = [key for key in question if not isinstance(known, dict) or known.get(key) != question[key]]
            raise AsynDMError(
                f"{folder} holds the work of another question (other {', '.join(other) or 'keys'}); "
                "give another --folder"
            )
        self._errors = folder / "errors.jsonl"

    def _picture(self, number: int) -> Path:
        return self.folder / f"picture-{number:04d}.safetensors"

    def make(self, batches: Batches, prompts: Sequence[Prompt], way: Way, size: int) -> None:
        """Make the pictures that are not there, ``size`` at once, and keep their latents and the
        cells of their targets."""
        width, height = self.question["size"]
        model = batches.checkpoint.diffusion_model
        todo = [number for number in range(len(prompts)) if not self._picture(number).exists()]
        with tqdm(total=len(prompts), unit="picture", disable=None, initial=len(prompts) - len(todo)) as bar:
            for start in range(0, len(todo), size):
                part, maps = todo[start : start + size], LateMaps()
                noise = batches.noise(part, width, height)
                latents = batches.make([prompts[number] for number in part], noise, way, NOTHING_LAGS, [maps])
                targets = maps.mask(_cells(model, latents))
                for row, number in enumerate(part):
                    partial = self._picture(number).with_suffix(".part")
                    save_file({"latents": latents[row].contiguous(), "targets": targets[row].contiguous()}, partial)
                    partial.replace(self._picture(number))
                bar.update(len(part))

    def measure(self, batches: Batches, prompts: Sequence[Prompt], size: int) -> Errors:
        """All errors, over all pictures."""
        found = self._known()
        places = list(_places())
        parts: list[Part] = []
        with tqdm(total=len(places), unit="error", disable=None) as bar:
            for place in places:
                if place not in found:
                    starts = range(0, len(prompts), size)
                    parts = parts or [self._part(batches, prompts, start, size) for start in starts]
                    found[place] = _error(parts, *place)
                    with self._errors.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(asdict(found[place])) + "\n")
                bar.update()
        return {place: found[place] for place in places}

    def _known(self) -> Errors:
        found: Errors = {}
        text = self._errors.read_text(encoding="utf-8") if self._errors.exists() else ""
        for line in text.splitlines():
            try:
                error = Error(**json.loads(line))
            except (ValueError, TypeError):
                continue  # a line that a stop cut short
            found[error.timestep, error.lead, error.asked] = error
        if text and not text.endswith("\n"):
            with self._errors.open("a", encoding="utf-8") as file:
                file.write("\n")
        return found

    def _part(self, batches: Batches, prompts: Sequence[Prompt], start: int, size: int) -> Part:
        numbers = range(start, min(start + size, len(prompts)))
        kept = [load_file(self._picture(number)) for number in numbers]
        both = (torch.stack([one[name] for one in kept]) for name in ("latents", "targets"))
        latents, targets = (kind.to(batches.device) for kind in both)
        width, height = self.question["size"]
        # Other random numbers than those that the pictures were made of.
        noise = batches.noise([number + len(prompts) for number in numbers], width, height).like(latents)
        captions = [prompts[number].text for number in numbers]
        others = [prompts[(number + 1) % len(prompts)].text for number in numbers]
        return Part(batches, Scenes(latents, targets, captions, noise), others)


class LateMaps:
    """An observer that adds up the token maps of the late steps."""

    def __init__(self) -> None:
        self._sum: Tensor | None = None

    def __call__(self, seen: Seen) -> None:
        if seen.maps is not None and seen.i >= LATE * seen.total:
            self._sum = seen.maps if self._sum is None else self._sum + seen.maps

    def mask(self, cells: Cells) -> Tensor:
        """The targets' cells, bool ``[B, 1, h, w]``."""
        if self._sum is None:
            return torch.zeros(cells.shape, dtype=torch.bool, device=cells.device)
        present = torch.ones(self._sum.shape[:2], dtype=torch.bool, device=cells.device)
        no_matter = torch.tensor(0.0, device=cells.device)  # the concavity
        return relate_alike(self._sum, present, no_matter, 1.0, Resize(*cells.size)).related


class Part:
    """Some of the pictures, and the model's errors on them."""

    def __init__(self, batches: Batches, drawn: Scenes, others: Sequence[str]):
        """``others`` are captions of other pictures."""
        self._batches, self._drawn = batches, drawn
        self._cells = _cells(batches.checkpoint.diffusion_model, drawn.latents)
        right = batches.conditioning(drawn.captions)
        none = {name: value.expand_as(right[name]) for name, value in batches.conditioning([""]).items()}
        self._told = {"right": right, "another's": batches.conditioning(others), "none": none}
        inside = self._cells.pixels(drawn.targets)
        self.parts = inside.double(), (~inside).double()

    def squares(self, timestep: int, lead: int, asked: Asked) -> tuple[Tensor, Tensor]:
        """The sums of the squared errors in the targets and in the rest, ``self.parts`` of which
        they are the means."""
        batches, drawn = self._batches, self._drawn
        # The rest is at the host's level, which is the first.
        timesteps = torch.tensor([float(timestep - lead), float(timestep)][: 1 + (lead > 0)], device=batches.device)
        index = drawn.targets.long() * (lead > 0)
        at = Levels(batches, self._cells, timesteps, index)
        with batches.fast_layers():
            prediction = predicted(batches, drawn, self._told[asked.caption], at, per_cell=asked.per_cell)
        error = (prediction - drawn.latents) / at.sigma
        square = error.double().square().mean(dim=1, keepdim=True)
        inside, outside = self.parts
        return (square * inside).sum(), (square * outside).sum()


def _places() -> Iterator[tuple[int, int, str]]:
    alone = {level for timestep in TIMESTEPS for level in (timestep, *(timestep - lead for lead in LEADS))}
    for timestep in sorted(alone, reverse=True):
        yield from ((timestep, 0, asked) for asked in CAPTIONS)
    for timestep in TIMESTEPS:
        for lead in LEADS:
            yield from ((timestep, lead, asked) for asked in ASKED)


def _error(parts: Sequence[Part], timestep: int, lead: int, asked: str) -> Error:
    sums = [part.squares(timestep, lead, ASKED[asked]) for part in parts]
    means = []
    for here in (0, 1):
        cells = float(sum(part.parts[here].sum() for part in parts))
        means.append(float(sum(one[here] for one in sums)) / cells if cells else math.nan)
    return Error(timestep, lead, asked, *means)


def ratios(errors: Errors, timestep: int, lead: int, asked: str) -> tuple[float, float]:
    """The errors in the targets and in the rest, as multiples of what they are with the right
    caption where all is at the targets' level, and at the rest's."""
    right = next(iter(ASKED))
    if lead == 0 and asked not in CAPTIONS:
        asked = right
    here = errors[timestep, lead, asked]
    targets, rest = errors[timestep, 0, right].targets, errors[timestep - lead, 0, right].rest
    return here.targets / targets, here.rest / rest


def _curves(errors: Errors) -> dict[tuple[str, int], dict[str, list[float]]]:
    """The ratios over the leads, by part of the picture and timestep, then by what was asked."""
    return {
        (part, timestep): {
            asked: [ratios(errors, timestep, lead, asked)[here] for lead in (0, *LEADS)] for asked in ASKED
        }
        for here, part in enumerate(("targets", "rest"))
        for timestep in TIMESTEPS
    }


def markdown(errors: Errors) -> str:
    """The ratios as a table: in each cell the targets' and the rest's."""
    rows = []
    for timestep in TIMESTEPS:
        for lead in (0, *LEADS):
            cells = [ratios(errors, timestep, lead, asked) for asked in ASKED]
            rows.append([str(timestep), str(lead), *(f"{targets:.2f} · {rest:.2f}" for targets, rest in cells)])
    return table.lines(["targets' timestep", "lead", *ASKED], rows)


def save(path: Path, question: dict[str, Any], errors: Errors) -> None:
    """Write the question and the errors."""
    lines = ",\n  ".join(json.dumps(asdict(error)) for error in errors.values())
    path.write_text(f'{{"question": {json.dumps(question)},\n "errors": [\n  {lines}\n]}}\n', encoding="utf-8")


def _cells(model: nn.Module, latents: Tensor) -> Cells:
    n, _, height, width = latents.shape
    return Cells(n, height, width, models.of(model).side(model), latents.device)


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**24):
            digest.update(block)
    return digest.hexdigest()
