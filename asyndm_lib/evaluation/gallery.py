"""Pictures of some prompts by some methods in a folder, and their scores, for models that the
counter does not know."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from ..errors import AsynDMError
from ..settings.settings import Settings
from . import manifest
from .engine import Batches
from .methods import DM, Method, Way
from .prompts import NoPicture, Prompt
from .scorers import Score, Scorer
from .spread import Gone, spread
from .statistics import mean
from .table import signed_value

METHODS = (
    DM,
    Method("DM_concave", Settings(whole_picture=True, concavity=0.5)),
    Method("AsynDM", Settings(concavity=0.5)),
    Method("AsynDM fresh", Settings(concavity=0.5, mask_timing="fresh")),
)
"""The methods that are compared. A target keeps the concavity that the prompts' file names for
it."""


class PictureMaker(Protocol):
    """Something that makes pictures: :class:`webui.WebUI` or :class:`LocalModel`."""

    def problem(self, prompt: Prompt) -> str | None:
        """Why there can be no picture of the prompt with AsynDM, as far as it is known before."""

    def picture(self, prompt: Prompt, way: Way, method: Method, seed: int) -> Image.Image:
        """The picture.

        Raises :class:`NoPicture` where others may succeed, and another :class:`AsynDMError` where
        none would.
        """


class LocalModel:
    """A checkpoint on this machine."""

    def __init__(self, batches: Batches, width: int, height: int):
        self._batches, self._size = batches, (width, height)

    def problem(self, prompt: Prompt) -> str | None:
        """Why there can be no picture of the prompt with AsynDM."""
        return self._batches.problem(prompt)

    def picture(self, prompt: Prompt, way: Way, method: Method, seed: int) -> Image.Image:
        """The picture."""
        noise = self._batches.noise([seed], *self._size)
        latents = self._batches.make([prompt], noise, way, method)
        pixels = (torch.cat(list(self._batches.pictures(latents)))[0] + 1) * 127.5
        return Image.fromarray(pixels.round().byte().permute(1, 2, 0).cpu().numpy())


Skipped = dict[int, str]
"""Why prompts have no pictures, by their numbers."""


@dataclass(frozen=True)
class Gallery:
    """The pictures of every prompt, method and seed in ``folder``."""

    folder: Path
    prompts: Sequence[Prompt]
    methods: Sequence[Method]
    seeds: Sequence[int]

    def path(self, method: Method, number: int, seed: int) -> Path:
        name = re.sub(r"[^a-z0-9]+", "-", method.name.lower())
        return self.folder / name / f"{number:04d}-{seed}.png"

    def hold(self, question: Mapping[str, Any]) -> None:
        """See that the folder's pictures are of these prompts and methods, and of ``question``:
        all else that decides a picture.

        Raises :class:`AsynDMError` if they are not.
        """
        growing = {
            "prompts": {str(n): {"text": one.text, "targets": one.targets} for n, one in enumerate(self.prompts, 1)},
            "methods": {method.name: manifest.stated(method) for method in self.methods},
        }
        begun = any(self.folder.glob("*/*-*.png"))
        manifest.hold(self.folder / "manifest.json", question, growing, begun)

    def fill(self, makers: Sequence[PictureMaker], way: Way, say: Callable[[str], None] = print) -> Skipped:
        """Make the pictures that are not there yet, each by whichever of ``makers`` is free.

        ``say`` is told of every prompt that is skipped, and of every maker that is gone, and why.
        Raises :class:`Gone` if none is left.
        """
        skipped: Skipped = {}
        left = list(makers)

        def skip(number: int, why: str) -> None:
            skipped[number] = why
            say(f"skipped, {self.prompts[number].text!r:.80}: {why}")

        def gone(maker: PictureMaker, error: Gone) -> None:
            left.remove(maker)
            say(f"{error}; {len(left)} of {len(makers)} go on without it")

        def picture(maker: PictureMaker, job: tuple[int, Method, int]) -> Image.Image | NoPicture:
            number, method, seed = job
            try:
                return maker.picture(self.prompts[number], way, method, seed)
            except NoPicture as error:
                return error

        todo = [number for number in range(len(self.prompts)) if self._lacking(number)]
        problems = spread(todo, makers, lambda maker, number: maker.problem(self.prompts[number]), gone)
        for number, why in sorted((number, why) for number, why in problems if why):
            skip(number, why)
        todo = [number for number in todo if number not in skipped]
        total = sum(len(self._lacking(number)) for number in todo)
        jobs = ((number, *job) for number in todo for job in self._lacking(number) if number not in skipped)
        with tqdm(total=total, unit="picture", disable=None) as bar:
            for (number, method, seed), made in spread(jobs, tuple(left), picture, gone):
                if isinstance(made, Image.Image):
                    self._keep(made, method, number, seed)
                    bar.update(number not in skipped)
                elif number not in skipped:
                    bar.clear()
                    skip(number, str(made))
                    bar.update(len(self._lacking(number)))
        return skipped

    def scores(
        self, scorers: Mapping[str, Scorer], skipped: Skipped, say: Callable[[str], None] = print
    ) -> dict[str, dict[str, np.ndarray]]:
        """The scores ``[prompts, seeds]`` of all prompts but the skipped ones, by scorer and
        method. Known scores are on file beside the pictures.

        One scorer's model is loaded at a time. ``say`` is told of each that fails, and why; it has
        no scores then.
        """
        known_at = self.folder / "scores.json"
        made_of = {name: scorer.made_of for name, scorer in scorers.items()}
        manifest.hold(self.folder / "scorers.json", {}, {"scorers": made_of}, known_at.exists())
        known = _read(known_at)
        numbers = [number for number in range(len(self.prompts)) if number not in skipped]
        scores = {}
        for name, scorer in scorers.items():
            try:
                scores[name] = self._scores(name, scorer, numbers, known, known_at)
            except Exception as error:  # whatever a foreign package raises
                say(f"no {name}: {' '.join(str(error).split())[:160] or type(error).__name__}")
        return scores

    def _scores(
        self, name: str, scorer: Scorer, numbers: Sequence[int], known: dict[str, dict[str, float]], known_at: Path
    ) -> dict[str, np.ndarray]:
        scores = {method.name: np.zeros((len(numbers), len(self.seeds))) for method in self.methods}
        score: Score | None = None
        for row, number in enumerate(tqdm(numbers, desc=name, unit="prompt", disable=None)):
            new = False
            for method, seed in product(self.methods, self.seeds):
                path = self.path(method, number, seed)
                own = known.setdefault(path.relative_to(self.folder).as_posix(), {})
                if name not in own:
                    score = score or scorer.load()
                    with Image.open(path) as picture:
                        own[name] = score(self.prompts[number], picture.convert("RGB"))
                    new = True
                scores[method.name][row, self.seeds.index(seed)] = own[name]
            if new:
                partial = known_at.with_suffix(".part")
                partial.write_text(json.dumps(known), encoding="utf-8")
                partial.replace(known_at)
        return scores

    def _lacking(self, number: int) -> list[tuple[Method, int]]:
        """The methods and seeds of a prompt without a picture.

        Those that need targets come first: a prompt that has none costs no more than one picture.
        """
        methods = sorted(self.methods, key=lambda method: method.settings.whole_picture)
        pairs = product(methods, self.seeds)
        return [(method, seed) for method, seed in pairs if not self.path(method, number, seed).exists()]

    def _keep(self, picture: Image.Image, method: Method, number: int, seed: int) -> None:
        path = self.path(method, number, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".part")
        picture.save(partial, format="PNG")
        partial.replace(path)


def _read(path: Path) -> dict[str, dict[str, float]]:
    """The scores on file."""
    try:
        known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except (OSError, ValueError, RecursionError) as error:
        raise AsynDMError(f"{path} cannot be read ({error}); delete it to have all pictures scored again") from error
    if not isinstance(known, dict) or not all(isinstance(own, dict) for own in known.values()):
        raise AsynDMError(f"{path} holds no scores; delete it to have all pictures scored again")
    return known


def parts(scores: Mapping[str, np.ndarray], of: Sequence[str]) -> dict[str, dict[str, np.ndarray]]:
    """One scorer's ``scores [prompts, seeds]``, by method, divided by what a prompt is ``of``."""
    rows = {part: [row for row, other in enumerate(of) if other == part] for part in dict.fromkeys(of)}
    return {part: {method: own[here] for method, own in scores.items()} for part, here in rows.items()}


def table(scores: dict[str, dict[str, np.ndarray]]) -> list[str]:
    """A line per method: the ordinary pictures' mean scores, and the others' differences from them.

    Differences are paired by prompt and seed, with 95 % intervals.
    """
    methods: Iterable[str] = dict.fromkeys(method for own in scores.values() for method in own)
    lines = ["  ".join([f"{'':16}", *(f"{name:>20}" for name in scores)])]
    for method in methods:
        cells = []
        for own in scores.values():
            if method == DM.name:
                cells.append(f"{own[method].mean():.4f}")
            else:
                cells.append(signed_value(mean((own[method] - own[DM.name]).mean(axis=1))))
        lines.append("  ".join([f"{method:16}", *(f"{cell:>20}" for cell in cells)]))
    return lines
