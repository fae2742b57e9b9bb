"""Pictures of some prompts by some methods in a folder, and their scores, for models that the
counter does not know."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from ..settings.settings import Settings
from .engine import Batches
from .methods import DM, Method, Way
from .prompts import Prompt
from .scorers import Scorer
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

    def picture(self, prompt: Prompt, way: Way, method: Method, seed: int) -> Image.Image: ...


class LocalModel:
    """A checkpoint on this machine."""

    def __init__(self, batches: Batches, width: int, height: int):
        self._batches, self._size = batches, (width, height)

    def picture(self, prompt: Prompt, way: Way, method: Method, seed: int) -> Image.Image:
        noise = self._batches.noise([seed], *self._size)
        latents = self._batches.make([prompt], noise, way, method)
        pixels = (torch.cat(list(self._batches.pictures(latents)))[0] + 1) * 127.5
        return Image.fromarray(pixels.round().byte().permute(1, 2, 0).cpu().numpy())


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

    def fill(self, maker: PictureMaker, way: Way) -> None:
        """Make the pictures that are not there yet."""
        for number, prompt, method, seed in tqdm(self._all(), unit="picture", disable=None):
            path = self.path(method, number, seed)
            if path.exists():
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".part")
            maker.picture(prompt, way, method, seed).save(partial, format="PNG")
            partial.replace(path)

    def scores(self, scorers: dict[str, Scorer]) -> dict[str, dict[str, np.ndarray]]:
        """The scores ``[prompts, seeds]``, by scorer and method. Known scores are on file beside
        the pictures."""
        known_at = self.folder / "scores.json"
        known = json.loads(known_at.read_text(encoding="utf-8")) if known_at.exists() else {}
        scores = {
            name: {m.name: np.zeros((len(self.prompts), len(self.seeds))) for m in self.methods} for name in scorers
        }
        for number, prompt, method, seed in self._all():
            path = self.path(method, number, seed)
            own = known.setdefault(str(path.relative_to(self.folder)), {})
            for name, score in scorers.items():
                if name not in own:
                    with Image.open(path) as picture:
                        own[name] = score(prompt, picture.convert("RGB"))
                scores[name][method.name][number, self.seeds.index(seed)] = own[name]
        known_at.write_text(json.dumps(known), encoding="utf-8")
        return scores

    def _all(self) -> list[tuple[int, Prompt, Method, int]]:
        return [
            (number, prompt, method, seed)
            for number, prompt in enumerate(self.prompts)
            for method in self.methods
            for seed in self.seeds
        ]


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
