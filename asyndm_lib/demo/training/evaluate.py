"""Stage 6: measure whether the model draws what two-object prompts name, and whether its token maps
localise.

Objects are found in the pictures without a trained classifier. Pixels that differ from the border's
median colour are joined into connected regions, and each region is compared with every emoji, both
scaled to the same square. A region that resembles none is cut at its narrow places, in case two
objects touch.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage

from . import sprites
from .concepts import CONCEPTS
from .export import load_model
from .sampling import Result, generate, token_map, word_positions
from .training import contact_sheet

THUMB = 40  # edge to which regions and emoji are scaled for comparing
CONTRAST = 0.1  # least difference from the background, of 1, in any channel
SMALLEST = 500  # pixels in a region that counts
POOR = 0.1  # a region this far from every emoji may be two objects that touch


@dataclass
class Settings:
    """The options of an evaluation."""

    sprites: Path
    model: Path
    prompts: int = 100
    steps: int = 30
    guidance: float = 4.5
    seed: int = 0
    batch: int = 25
    sheet: Path | None = None
    report: Path | None = None
    device: str = "cpu"


@dataclass
class SampleSettings:
    """The options of making pictures."""

    prompt: str  # several: separated by |
    output: Path
    model: Path
    count: int = 4  # pictures per prompt
    steps: int = 30
    guidance: float = 4.5
    seed: int = 0
    device: str = "cpu"


@dataclass
class Region:
    """One object found in a picture."""

    concept: int
    distance: float  # mean absolute difference from the nearest emoji, 0-1
    mask: np.ndarray  # [h, w] bool


class Finder:
    """Finds and names the objects of pictures with plain backgrounds."""

    def __init__(self, atlas: np.ndarray):
        largest = atlas[:, -1].astype(np.float32) / 255
        self.thumbs, self.shapes = [], []
        for sprite in largest:
            rows, columns = (np.flatnonzero((sprite[..., 3] > 0.5).any(axis)) for axis in (1, 0))
            crop = sprite[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            self.shapes.append(np.log(crop.shape[1] / crop.shape[0]))
            self.thumbs.append(_thumb(torch.from_numpy(crop).permute(2, 0, 1)))
        self.stack = torch.stack(self.thumbs)

    def __call__(self, picture: torch.Tensor) -> list[Region]:
        """The regions of one picture ``[3, h, w]`` in [-1, 1]."""
        image = ((picture.float() + 1) / 2).cpu()
        array = image.permute(1, 2, 0).numpy()
        border = np.concatenate([array[:4].reshape(-1, 3), array[-4:].reshape(-1, 3), array[:, :4].reshape(-1, 3),
                                 array[:, -4:].reshape(-1, 3)])
        background = np.median(border, 0)
        differs = ndimage.binary_opening(np.abs(array - background).max(-1) > CONTRAST)
        found = []
        for mask in _pieces(ndimage.binary_dilation(differs, iterations=3), differs):
            region = self._name(image, background, mask)
            if region.distance > POOR:  # two objects that touch, perhaps: cut at the narrow places
                parts = [self._name(image, background, part) for part in _pieces(ndimage.binary_erosion(
                    ndimage.binary_fill_holes(mask), iterations=5), mask, grow=True)]
                if len(parts) > 1 and max(part.distance for part in parts) < region.distance:
                    found += parts
                    continue
            found.append(region)
        return found

    def _name(self, image: torch.Tensor, background: np.ndarray, mask: np.ndarray) -> Region:
        rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
        crop = image[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        colour = torch.tensor(background, dtype=torch.float32).view(1, 3, 1, 1)
        expected = self.stack[:, :3] + (1 - self.stack[:, 3:]) * colour
        distance = (expected - _thumb(crop)).abs().mean((1, 2, 3))
        shape = np.log(crop.shape[2] / crop.shape[1])
        distance = distance + 0.15 * torch.tensor([abs(shape - other) for other in self.shapes])
        best = int(distance.argmin())
        return Region(best, float(distance[best]), mask)


def _pieces(areas: np.ndarray, mask: np.ndarray, grow: bool = False) -> list[np.ndarray]:
    """The parts of ``mask`` in each connected area. With ``grow`` every pixel of the mask goes to
    the nearest area."""
    labels, count = ndimage.label(areas)
    if grow and count:
        nearest = ndimage.distance_transform_edt(labels == 0, return_distances=False, return_indices=True)
        labels = labels[tuple(nearest)]
    parts = [(labels == index) & mask for index in range(1, count + 1)]
    return [part for part in parts if part.sum() >= SMALLEST]


def _thumb(crop: torch.Tensor) -> torch.Tensor:
    return F.interpolate(crop[None], (THUMB, THUMB), mode="bilinear", antialias=True, align_corners=False)[0]


def two_object_prompts(count: int, seed: int) -> list[tuple[str, int, int]]:
    """Prompts that name two different things, and these two concepts. Half of them have a
    background colour."""
    rng = random.Random(seed)
    result = []
    for index in range(count):
        pair = rng.sample(range(len(CONCEPTS)), 2)
        first, second = (("an " if name[0] in "aeiou" and not name.startswith("uni") else "a ") + name
                         for name in (CONCEPTS[concept].name for concept in pair))
        tail = f" on a {rng.choice(['green', 'blue', 'yellow', 'pink', 'white'])} background" if index % 2 else ""
        result.append((f"{first} and {second}{tail}", *pair))
    return result


def measure_maps(result: Result, row: int, prompt: str, targets: dict[int, np.ndarray], encode) -> dict[int, dict]:
    """The ratio of inside to outside and where the map is highest, per target, over the steps from
    a third on."""
    first = len(result.maps) // 3
    edge = result.maps[0].shape[1]
    cells = {concept: F.adaptive_avg_pool2d(torch.from_numpy(mask)[None].float(), edge)[0]
             for concept, mask in targets.items()}
    report = {}
    for concept, own in cells.items():
        places = word_positions(prompt, CONCEPTS[concept].name, encode)
        ratios, peaks, wins = [], [], []
        for maps in result.maps[first:]:
            found = token_map(maps, row, places)
            inside = {key: float((found * cell).sum() / cell.sum()) for key, cell in cells.items()}
            outside = float((found * (1 - own)).sum() / (1 - own).sum())
            ratios.append(inside[concept] / outside)
            peaks.append(float(own.flatten()[found.argmax()]) > 0.25)
            wins.append(max(inside, key=inside.get) == concept)
        report[concept] = {"ratio": float(np.mean(ratios)), "lowest": float(np.min(ratios)),
                           "peak": float(np.mean(peaks)), "wins": float(np.mean(wins))}
    return report


def run(settings: Settings) -> None:
    """Make pictures, find the objects, measure, and print."""
    model = load_model(settings.model, settings.device)
    finder = Finder(sprites.load(settings.sprites))
    prompts = two_object_prompts(settings.prompts, settings.seed)
    rows, pictures = [], []
    for start in range(0, len(prompts), settings.batch):
        part = prompts[start : start + settings.batch]
        result = generate(model, [prompt for prompt, *_ in part], steps=settings.steps, guidance=settings.guidance,
                          seed=settings.seed + start, keep_maps=True)
        pictures.append(result.pictures.cpu())
        for index, (prompt, *pair) in enumerate(part):
            regions = finder(result.pictures[index])
            names = [region.concept for region in regions]
            targets = {concept: np.any([region.mask for region in regions if region.concept == concept], 0)
                       for concept in pair if concept in names}
            maps = measure_maps(result, index, prompt, targets, model.encode) if len(targets) == 2 else {}
            rows.append({"prompt": prompt, "found": [CONCEPTS[name].name for name in names],
                         "right": sum(concept in names for concept in pair), "exact": sorted(names) == sorted(pair),
                         "maps": list(maps.values())})
    maps = [entry for row in rows for entry in row["maps"]]
    summary = {
        "prompts": len(rows),
        "both objects found": float(np.mean([row["right"] == 2 for row in rows])),
        "both and nothing else": float(np.mean([row["exact"] for row in rows])),
        "objects found": float(np.mean([row["right"] / 2 for row in rows])),
        "targets measured": len(maps),
        "mean inside/outside": float(np.mean([entry["ratio"] for entry in maps])) if maps else 0.0,
        "median inside/outside": float(np.median([entry["ratio"] for entry in maps])) if maps else 0.0,
        "targets with inside/outside >= 2": float(np.mean([entry["ratio"] >= 2 for entry in maps])) if maps else 0.0,
        "targets never below 2": float(np.mean([entry["lowest"] >= 2 for entry in maps])) if maps else 0.0,
        "maximum inside own object": float(np.mean([entry["peak"] for entry in maps])) if maps else 0.0,
        "own object highest of the two": float(np.mean([entry["wins"] for entry in maps])) if maps else 0.0,
    }
    for row in rows:
        if not row["exact"]:
            print(f"{row['prompt']}: {', '.join(row['found'])}")
    print(json.dumps(summary, indent=1))
    if settings.report:
        settings.report.write_text(json.dumps({"summary": summary, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    if settings.sheet:
        contact_sheet(torch.cat(pictures), 10, settings.sheet)


def sample(settings: SampleSettings) -> None:
    """Write a contact sheet with a row for each prompt, of ``count`` pictures."""
    model = load_model(settings.model, settings.device)
    prompts = [prompt.strip() for prompt in settings.prompt.split("|") for _ in range(settings.count)]
    result = generate(model, prompts, steps=settings.steps, guidance=settings.guidance, seed=settings.seed)
    contact_sheet(result.pictures, settings.count, settings.output)
