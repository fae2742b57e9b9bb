"""Measure what a lead of the rest does to the prediction of the targets: ``python -m
asyndm_lib.evaluation.lead --sprites FILE``

Scenes are noised, their objects to a timestep ``t`` and all else to an earlier one: the rest leads
by so many timesteps, as in a run whose masks are right. The model predicts the picture with the
scene's caption, and the error inside the objects is compared with that where all is at ``t``.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .. import models
from ..clock.cells import Cells
from ..demo import EMBEDDED, MODEL, outputs, program
from ..demo.device import device_of
from ..demo.program import whole
from ..demo.training import scenes, sprites
from ..demo.training.export import load_model
from ..errors import AsynDMError
from ..hosts.standalone.ldm_checkpoint import load
from ..run.model_call import Rows
from . import table
from .engine import Batches
from .text_level import text_at_mean

TIMESTEPS = (900, 700, 500, 300)
LEADS = (50, 100, 200)
COVERED = 0.25
"""The least share of a cell that an object covers to be the object's."""

TEXTS = ("host's", "mean", "targets'")
"""The noise levels that the prompt can have. A UNet's has none."""


@dataclass(frozen=True)
class Lead:
    """What a lead does, as multiples of what is where all is at the targets' timestep.

    ``text``: one of :data:`TEXTS`, or "" in a UNet. ``error``: the squared error of the prediction
    inside the targets. ``guidance``: the square there of what the caption changes. ``gain``: how
    much larger the error is with another scene's caption.
    """

    model: str
    timestep: int
    lead: int
    text: str
    error: float
    guidance: float
    gain: float


@dataclass(frozen=True)
class Scenes:
    """Scenes, in latents ``[n, C, h, w]``, with the cells of their objects, bool ``[n, 1, …]``."""

    latents: Tensor
    targets: Tensor
    captions: list[str]
    noise: Tensor


class Predictor:
    """The model's predictions of scenes whose cells are at two noise levels."""

    def __init__(self, batches: Batches, drawn: Scenes):
        self._batches, self._drawn = batches, drawn
        self._model = batches.checkpoint.diffusion_model
        n, _, height, width = drawn.latents.shape
        self._cells = Cells(n, height, width, models.of(self._model).side(self._model), drawn.latents.device)
        captions = batches.conditioning(drawn.captions)
        others = {name: value.roll(1, 0) for name, value in captions.items()}
        nothing = {name: value.expand_as(captions[name]) for name, value in batches.conditioning([""]).items()}
        self._told = (captions, others, nothing)
        self._inside = self._cells.pixels(drawn.targets).float()

    def figures(self, timestep: int, lead: int, text: str) -> tuple[float, float, float]:
        """The error inside the targets, the guidance there, and the error with other captions."""
        captioned, other, empty = (self._predicted(told, timestep, lead, text) for told in self._told)
        truth = self._drawn.latents
        return self._mean(captioned - truth), self._mean(captioned - empty), self._mean(other - truth)

    def _mean(self, difference: Tensor) -> float:
        square = difference.double().square().mean(dim=1, keepdim=True)
        return float((square * self._inside).sum() / self._inside.sum())

    def _predicted(self, told: dict[str, Tensor], timestep: int, lead: int, text: str) -> Tensor:
        drawn, device = self._drawn, self._drawn.latents.device
        own, ahead = (torch.tensor(float(t), device=device) for t in (timestep, timestep - lead))
        # The first level is the host's, by which the text goes.
        first, second = (own, ahead) if text == TEXTS[2] else (ahead, own)
        timesteps = torch.stack([first, second]) if lead else own[None]
        second_cells = ~drawn.targets if text == TEXTS[2] else drawn.targets
        index = second_cells.long() if lead else torch.zeros_like(drawn.targets, dtype=torch.long)
        at = Levels(self._batches, self._cells, timesteps, index)

        def around() -> AbstractContextManager[None]:
            return text_at_mean(self._model, at.sigma, at.levels[0]) if text == TEXTS[1] else nullcontext()

        return predicted(self._batches, drawn, told, at, around)


class Levels:
    """Noise levels of the cells of some pictures.

    Cell ``p`` of picture ``n`` is at ``timesteps[index[n, 0, p]]``; the first is the host's.
    ``levels`` are their sigmas, ``sigma`` ``[n, 1, H, W]`` that of every latent pixel.
    """

    def __init__(self, batches: Batches, cells: Cells, timesteps: Tensor, index: Tensor):
        self.timesteps, self.index = timesteps, index
        self.levels = batches.sigmas_of(timesteps).float()
        self.sigma = cells.pixels(self.levels[index])
        self.off_the_first = cells.pixels(index > 0)


@torch.no_grad()
def predicted(
    batches: Batches,
    drawn: Scenes,
    told: dict[str, Tensor],
    at: Levels,
    around: Callable[[], AbstractContextManager[None]] = nullcontext,
    per_cell: bool = True,
) -> Tensor:
    """The model's prediction of the ``drawn`` pictures, noised to the levels ``at``.

    ``told`` is their conditioning. ``around`` is entered around the call of the model, which is
    told every cell's timestep, or without ``per_cell`` the first level's for all.
    """
    model = batches.checkpoint.diffusion_model
    clean = drawn.latents * (1 - at.sigma) if batches.checkpoint.flow else drawn.latents
    timesteps = models.of(model).timesteps(model)
    with ExitStack() as stack:
        stack.callback(timesteps.detach)
        timesteps.attach()
        if per_cell:
            stack.enter_context(timesteps.use(at.timesteps, at.index))
        stack.enter_context(around())
        rows = Rows(at.sigma, at.off_the_first)
        return batches.denoised(clean + at.sigma * drawn.noise, at.levels[0], told, rows)


def measured(name: str, predictors: Sequence[Predictor], texts: Sequence[str]) -> Iterator[Lead]:
    """A result for every timestep, lead and level of the text."""
    for timestep in TIMESTEPS:
        alone = _sum(predictor.figures(timestep, 0, "") for predictor in predictors)
        for lead in LEADS:
            for text in texts:
                error, guidance, other = _sum(predictor.figures(timestep, lead, text) for predictor in predictors)
                gain = (other / error) / (alone[2] / alone[0])
                yield Lead(name, timestep, lead, text, error / alone[0], guidance / alone[1], gain)


def _sum(figures: Iterator[tuple[float, float, float]]) -> np.ndarray:
    return np.sum(list(figures), axis=0)


@torch.no_grad()
def draw(count: int, atlas: np.ndarray, batches: Batches, seed: int) -> Scenes:
    """``count`` scenes as training draws them, encoded, with noise."""
    device, model = batches.device, batches.checkpoint.diffusion_model
    parts = load_model(MODEL.parent, device)
    painter, layout = scenes.Painter(atlas, device), scenes.draw_layout(count, np.random.default_rng(seed), soft=0.0)
    picture, alphas = painter.paint(layout)
    latents = torch.cat([parts.vae.encode(part)[0] for part in picture.split(32)]) * parts.scale
    cells = latents.shape[-1] // models.of(model).side(model)
    targets = painter.masks(layout, alphas, cells).amax(dim=1, keepdim=True) >= COVERED
    captions = [caption.text for caption in scenes.captions(layout, parts.encode, random.Random(seed))]
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed)).to(device)
    return Scenes(latents, targets, captions, noise)


def markdown(found: Sequence[Lead]) -> str:
    """The errors as a table."""
    columns = [(model, text) for model, text in dict.fromkeys((one.model, one.text) for one in found)]
    heads = [model + (f", text at {text} level" if text else "") for model, text in columns]
    rows = []
    for timestep, lead in dict.fromkeys((one.timestep, one.lead) for one in found):
        cells = []
        for model, text in columns:
            place = model, text, timestep, lead
            here = [one for one in found if (one.model, one.text, one.timestep, one.lead) == place]
            cells.append(" · ".join(f"{value:.2f}" for one in here for value in (one.error, one.guidance, one.gain)))
        rows.append([str(timestep), str(lead), *cells])
    return table.lines(["targets' timestep", "lead", *heads], rows)


def save(path: Path, found: Sequence[Lead], count: int) -> None:
    """Write the results."""
    lines = ",\n  ".join(json.dumps(asdict(one)) for one in found)
    path.write_text(f'{{"scenes": {count},\n "results": [\n  {lines}\n]}}\n', encoding="utf-8")


def load_results(path: Path) -> list[Lead]:
    """What :func:`save` wrote. Raises :class:`AsynDMError` for any other file."""
    try:
        return [Lead(**one) for one in json.loads(path.read_text(encoding="utf-8"))["results"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise AsynDMError(f"{path} is not a results file: {error}") from error


FILE = Path(__file__).parent / "lead.json"
"""The committed results."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, or read what was measured, and return the exit code."""
    return program.run(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> None:
    """Print the error, the guidance and the gain of the right caption, as multiples of what they
    are without a lead."""
    parser = program.Parser(prog="python -m asyndm_lib.evaluation.lead", description=_run.__doc__)
    add = parser.add_argument
    add("--sprites", type=Path, metavar="FILE", help="of the stage sprites; without it only the table")
    add("--results", type=Path, default=FILE, metavar="FILE", help="where the results are")
    add("--into", type=Path, metavar="README", help="also put the table into this file")
    add("--scenes", type=whole(1, 10**6), default=512, metavar="N", help="how many")
    add("--batch", type=whole(1, 4096), default=128, metavar="N", help="scenes at once")
    add("--device", help="cpu or cuda; by default cuda where there is one")
    options = parser.parse_args(arguments)
    if options.sprites is None and (idle := options.given.keys() - {"results", "into"}):
        raise AsynDMError(f"{options.given[min(idle)]} needs --sprites: without it only the table is printed")
    if options.into is not None:
        table.marked(options.into, options.results.stem)
    if options.sprites is not None:
        outputs.check_file(options.results, "--results")
        device, atlas, found = device_of(options.device), sprites.load(options.sprites), []
        for name, path in EMBEDDED.items():
            batches = Batches(load(path, None, device))
            starts = range(0, options.scenes, options.batch)
            predictors = [Predictor(batches, draw(options.batch, atlas, batches, seed)) for seed in starts]
            found += measured(name, predictors, TEXTS if batches.checkpoint.flow else ("",))
        save(options.results, found, len(starts) * options.batch)
    text = markdown(load_results(options.results))
    if options.into is not None:
        table.insert(options.into, text, options.results.stem)
    print(text)


if __name__ == "__main__":
    sys.exit(main())
