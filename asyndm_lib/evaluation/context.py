"""The ``context`` command: how well a model bears a context that is ahead.

Pictures of the model's own are noised, their targets to a timestep and all else to one that lies a
lead before it, as in a run whose masks are right. The error of the prediction inside the targets,
and in the rest, is compared with that where the picture is at one level.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from .. import models
from ..clock.cells import Cells
from ..demo import EMBEDDED, outputs
from ..demo.device import device_of
from ..errors import AsynDMError
from ..hosts.standalone.embedded import Request
from ..hosts.standalone.ldm_checkpoint import load
from ..masks.threshold import relate_alike
from ..models.family import Row
from ..models.parts.resampling import Resize
from ..run.step import Seen
from ..settings.settings import Settings
from . import context_plot, manifest, prompt_files, subjects, table
from .engine import Batches
from .lead import Levels, Scenes, predicted
from .methods import FLOW_USERS, USERS, Method, Way
from .prompt_sets import PLAIN, sets
from .prompts import Prompt
from .regions import Control
from .runner import SIDE

TOP = 999
"""The timestep at which a run begins."""

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
    """How the model is asked.

    ``caption``: "right", "another's" or "none". ``per_cell``: whether it is told every cell's
    timestep, and not the rest's for all. ``by_level``: whether its normalisation is by level.
    """

    caption: str = "right"
    per_cell: bool = True
    by_level: bool = False


ASKED = {
    "time per pixel": Asked(),
    "one time for all": Asked(per_cell=False),
    "another's caption": Asked("another's"),
    "no caption": Asked("none"),
    "by level": Asked(by_level=True),
    "by level, another's caption": Asked("another's", by_level=True),
    "by level, no caption": Asked("none", by_level=True),
}
"""The ways of asking that are compared, by name. The first is the method."""

APART = 50
"""How many timesteps lie between the calls of the ordinary pass from which the normalisation by
level knows the levels: those of 20 steps."""


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
    outputs.check_folder(options.folder, "--folder")
    batches = Batches(load(path, options.config, device))
    usual = FLOW_USERS[1] if batches.checkpoint.flow else USERS[0]
    asked = {name: getattr(options, name) for name in ("sampler", "schedule", "steps", "cfg")}
    way = replace(usual, **{name: value for name, value in asked.items() if value is not None})
    width, height = options.width or side, options.height or side
    batches.check(Request("", "", (), way.sampler, way.schedule, way.steps, way.cfg, width, height))
    prompts = _usable(batches, prompt_files.read(options.prompts)) if options.prompts is not None else [
        prompt for row in zip(*(one.tuning for one in sets(kinds)), strict=True) for prompt in row
    ]
    prompts = [prompts[number % len(prompts)] for number in range(options.pictures)]
    work = Work(options.folder, {
        **manifest.model(path, options.config),
        "sampling": {name: getattr(way, name) for name in asked},
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


def _usable(batches: Batches, prompts: Sequence[Prompt]) -> list[Prompt]:
    """The prompts that have targets; of the others is said why they are skipped.

    Raises :class:`AsynDMError` if there is none.
    """
    problems = {prompt: why for prompt in prompts if (why := batches.problem(prompt))}
    for prompt, why in problems.items():
        print(f"skipped, {prompt.text!r:.80}: {why}", flush=True)
    if problems:
        print(f"{len(problems)} of {len(prompts)} prompts were skipped", flush=True)
    usable = [prompt for prompt in prompts if prompt not in problems]
    if not usable:
        raise AsynDMError("no prompt has targets in it")
    return usable


class Work:
    """A folder with the pictures and errors of one question; what is there is not made again."""

    def __init__(self, folder: Path, question: dict[str, Any]):
        """Raises :class:`AsynDMError` if the folder holds the work of another question."""
        self.folder, self.question = folder, question
        begun = any(folder.glob("picture-*.safetensors")) or (folder / "errors.jsonl").exists()
        manifest.hold(folder / "question.json", question, begun=begun)
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
        found, model = self._known(), batches.checkpoint.diffusion_model
        places = list(_places(models.of(model).norms(model) is not None))
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
        batches, drawn, told = self._batches, self._drawn, self._told[asked.caption]
        model = batches.checkpoint.diffusion_model
        at = self._at(timestep - lead, timestep)
        with batches.fast_layers(), ExitStack() as stack:
            around: Callable[[], AbstractContextManager[None]] = nullcontext
            norms = models.of(model).norms(model) if asked.by_level else None
            if norms is not None:
                stack.callback(norms.detach)
                norms.attach()
                rows: list[Row] = [(image, 0) for image in range(len(drawn.latents))]
                with norms.learning():
                    for level in calls_around(timestep - lead, timestep):
                        here = self._at(level, level)
                        predicted(batches, drawn, told, here, partial(norms.use, rows, here.timesteps, here.index))
                around = partial(norms.use, rows, at.timesteps, at.index)
            prediction = predicted(batches, drawn, told, at, around, asked.per_cell)
        error = (prediction - drawn.latents) / at.sigma
        square = error.double().square().mean(dim=1, keepdim=True)
        inside, outside = self.parts
        return (square * inside).sum(), (square * outside).sum()

    def _at(self, rest: float, targets: float) -> Levels:
        """The rest is at the host's level, which is the first."""
        levels = [rest] if rest == targets else [rest, targets]
        timesteps = torch.tensor(levels, dtype=torch.float32, device=self._batches.device)
        return Levels(self._batches, self._cells, timesteps, self._drawn.targets.long() * (len(levels) - 1))


def calls_around(*timesteps: int) -> list[int]:
    """The calls of an ordinary pass on either side of each of ``timesteps``, between which the
    statistics are interpolated, the noisiest first."""
    calls = range(TOP, -1, -APART)
    near = {max((c for c in calls if c <= t), default=calls[-1]) for t in timesteps}
    return sorted(near | {min((c for c in calls if c >= t), default=calls[0]) for t in timesteps}, reverse=True)


def _places(by_level: bool) -> Iterator[tuple[int, int, str]]:
    """The errors that are measured. ``by_level``: whether the model can normalise by level."""
    alone = {level for timestep in TIMESTEPS for level in (timestep, *(timestep - lead for lead in LEADS))}
    for timestep in sorted(alone, reverse=True):
        yield from ((timestep, 0, name) for name, asked in ASKED.items() if asked.per_cell and not asked.by_level)
    for timestep in TIMESTEPS:
        for lead in LEADS:
            yield from ((timestep, lead, name) for name, asked in ASKED.items() if by_level or not asked.by_level)


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
    if lead == 0:  # where all is at one level a time per pixel and a normalisation by level are the model's own
        asked = next(name for name, one in ASKED.items() if one.caption == ASKED[asked].caption)
    here = errors[timestep, lead, asked]
    targets, rest = errors[timestep, 0, right].targets, errors[timestep - lead, 0, right].rest
    return here.targets / targets, here.rest / rest


def _asked(errors: Errors) -> list[str]:
    return [name for name in ASKED if any(error.asked == name for error in errors.values())]


def _curves(errors: Errors) -> dict[tuple[str, int], dict[str, list[float]]]:
    """The ratios over the leads, by part of the picture and timestep, then by what was asked."""
    return {
        (part, timestep): {
            asked: [ratios(errors, timestep, lead, asked)[here] for lead in (0, *LEADS)]
            for asked in _asked(errors)
        }
        for here, part in enumerate(("targets", "rest"))
        for timestep in TIMESTEPS
    }


def markdown(errors: Errors) -> str:
    """The ratios as a table: in each cell the targets' and the rest's."""
    rows = []
    for timestep in TIMESTEPS:
        for lead in (0, *LEADS):
            cells = [ratios(errors, timestep, lead, asked) for asked in _asked(errors)]
            rows.append([str(timestep), str(lead), *(f"{targets:.2f} · {rest:.2f}" for targets, rest in cells)])
    return table.lines(["targets' timestep", "lead", *_asked(errors)], rows)


def save(path: Path, question: dict[str, Any], errors: Errors) -> None:
    """Write the question and the errors."""
    lines = ",\n  ".join(json.dumps(asdict(error)) for error in errors.values())
    path.write_text(f'{{"question": {json.dumps(question)},\n "errors": [\n  {lines}\n]}}\n', encoding="utf-8")


def _cells(model: nn.Module, latents: Tensor) -> Cells:
    n, _, height, width = latents.shape
    return Cells(n, height, width, models.of(model).side(model), latents.device)

