"""Scenes of one to four emoji on plain backgrounds or in sceneries: layout, picture, masks and
caption."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import torch
import torch.nn.functional as F

from .captions import Caption, Group, compose, tokenise
from .concepts import BACKGROUNDS, CONCEPTS, UNNAMED_BACKGROUNDS
from .scenery import SCENERIES, VARIANTS
from .sprites import SIZES
from .vocabulary import WordEncoder

SLOTS = 4
PARTITIONS: tuple[tuple[tuple[int, ...], float], ...] = (
    ((1,), 0.18), ((1, 1), 0.42), ((2,), 0.06), ((1, 1, 1), 0.09), ((2, 1), 0.10), ((3,), 0.03),
    ((3, 1), 0.04), ((2, 2), 0.03), ((2, 1, 1), 0.02), ((4,), 0.01), ((1, 1, 1, 1), 0.02))
"""How many objects a scene has: the sizes of its groups of equal objects, and the share of such
scenes."""

SIZE_RANGE = {1: (112, 144), 2: (80, 128), 3: (64, 96), 4: (64, 80)}
"""The smallest and the largest sprite, by the number of objects."""

GRID = 8
"""Objects start at multiples of this many pixels, the edge of one latent pixel. Each sprite then
has one encoding, which a small autoencoder can learn to draw crisply."""

BELONGING = 0.65
"""The share of the scenes in a scenery that show only things that belong there."""

LOOSE = 4
"""How many placements are tried for a scene in a scenery: few, so that things touch and overlap
there."""


@dataclass
class Layout:
    """What a batch of scenes shows.

    Positions are top-left corners. ``group`` and ``size`` are -1 in unused slots. ``backdrop`` is
    None where all backgrounds are plain.
    """

    concept: np.ndarray  # [n, SLOTS]
    group: np.ndarray  # [n, SLOTS]
    size: np.ndarray  # [n, SLOTS], index into SIZES
    x: np.ndarray  # [n, SLOTS]
    y: np.ndarray
    colour: np.ndarray  # [n, 2, 3] top and bottom background colour, 0-255
    background: np.ndarray  # [n] index into BACKGROUNDS, -1: not named
    backdrop: np.ndarray | None = None  # [n] index into scenery.backdrops(), -1: plain

    def groups(self, row: int) -> list[Group]:
        """The groups of equal objects in one scene."""
        found = []
        for index in range(int(self.group[row].max()) + 1):
            slots = self.group[row] == index
            found.append(Group(int(self.concept[row][slots][0]), int(slots.sum()), index))
        return found

    def direction(self, row: int) -> str | None:
        """Where the first of two single objects lies, seen from the second, if that is clear."""
        if (self.group[row] >= 0).sum() != 2 or self.group[row].max() != 1:
            return None
        half = np.array([SIZES[size] / 2 for size in self.size[row, :2]])
        dx = (self.x[row, 0] + half[0]) - (self.x[row, 1] + half[1])
        dy = (self.y[row, 0] + half[0]) - (self.y[row, 1] + half[1])
        if max(abs(dx), abs(dy)) < 48 or min(abs(dx), abs(dy)) > 0.8 * max(abs(dx), abs(dy)):
            return None
        return ("left" if dx < 0 else "right") if abs(dx) > abs(dy) else ("above" if dy < 0 else "below")

    def surroundings(self, row: int, rng: random.Random) -> str | None:
        """What a caption says of the scenery, if the scene has one."""
        if self.backdrop is None or self.backdrop[row] < 0:
            return None
        return rng.choice(SCENERIES[self.backdrop[row] // VARIANTS].phrases)


def draw_layout(n: int, rng: np.random.Generator, canvas: int = 256, tries: int = 24, soft: float = 0.1) -> Layout:
    """Random scenes. Of several placements of a scene's objects the one with the least overlap is
    taken.

    ``soft`` is the share of gradients of two colours among the backgrounds that no caption names.
    """
    shares = np.array([share for _, share in PARTITIONS])
    kinds = rng.choice(len(PARTITIONS), n, p=shares / shares.sum())
    table = np.full((len(PARTITIONS), SLOTS), -1)
    for index, (parts, _) in enumerate(PARTITIONS):
        table[index, : sum(parts)] = np.repeat(np.arange(len(parts)), parts)
    group = table[kinds]
    used = group >= 0
    count = used.sum(1)
    distinct = rng.random((n, len(CONCEPTS))).argpartition(SLOTS, axis=1)[:, :SLOTS]
    concept = np.where(used, np.take_along_axis(distinct, group.clip(0), 1), -1)
    low = np.array([0] + [SIZES.index(SIZE_RANGE[k][0]) for k in range(1, SLOTS + 1)])[count]
    high = np.array([0] + [SIZES.index(SIZE_RANGE[k][1]) for k in range(1, SLOTS + 1)])[count]
    size = np.where(used, rng.integers(low[:, None], high[:, None] + 1, (n, SLOTS)), -1)
    edge = np.where(used, np.array(SIZES)[size], 0)
    room = np.maximum(canvas - edge, 0)[:, None]
    x, y = ((rng.random((n, tries, SLOTS)) * (room // GRID + 1)).astype(np.int32) * GRID for _ in range(2))
    overlap = sum(overlaps(edge, used, x, y))
    best = overlap.argmin(1)
    rows = np.arange(n)
    named = rng.random(n) < 0.55
    background = np.where(named, rng.integers(0, len(BACKGROUNDS), n), -1)
    plain = np.array(list(BACKGROUNDS.values()))[background]
    other = np.array(UNNAMED_BACKGROUNDS)[rng.integers(0, len(UNNAMED_BACKGROUNDS), n)]
    colour = np.where(named[:, None], plain, other)[:, None].repeat(2, 1)
    gradient = ~named & (rng.random(n) < soft)
    colour[gradient] = rng.integers(150, 256, (int(gradient.sum()), 2, 3))
    return Layout(concept, group, size, x[rows, best], y[rows, best], colour, background)


def overlaps(edge: np.ndarray, used: np.ndarray, x: np.ndarray, y: np.ndarray) -> Iterator[np.ndarray]:
    """How deeply objects overlap, in pixels ``[n, tries]``, for one pair of slots after another.

    ``edge`` and ``used`` are ``[n, slots]``. ``x`` and ``y`` are the top-left corners,
    ``[n, tries, slots]``.
    """
    for a in range(edge.shape[1]):
        for b in range(a):
            reach = (edge[:, a] + edge[:, b]) / 2 * (used[:, a] & used[:, b])
            shift = [p[..., a] + edge[:, None, a] / 2 - p[..., b] - edge[:, None, b] / 2 for p in (x, y)]
            yield np.maximum(reach[:, None] - np.maximum(np.abs(shift[0]), np.abs(shift[1])), 0)


def draw_in_sceneries(n: int, rng: np.random.Generator) -> Layout:
    """Scenes in sceneries. Most of them show things that belong there."""
    layout = draw_layout(n, rng, tries=LOOSE, soft=0.0)
    layout.backdrop, layout.background = draw_backdrops(n, rng), np.full(n, -1)
    for row in np.flatnonzero(rng.random(n) < BELONGING):
        own = rng.permutation(SCENERIES[layout.backdrop[row] // VARIANTS].concepts)
        layout.concept[row] = np.where(layout.group[row] >= 0, own[layout.group[row].clip(0)], -1)
    return layout


def draw_backdrops(n: int, rng: np.random.Generator) -> np.ndarray:
    """Random indices into :func:`scenery.backdrops`, ``[n]``."""
    return rng.integers(0, len(SCENERIES) * VARIANTS, n)


def joined(*layouts: Layout) -> Layout:
    """The scenes of all ``layouts``."""
    parts = {field.name: [getattr(layout, field.name) for layout in layouts] for field in fields(Layout)}
    parts["backdrop"] = [np.full(len(layout.concept), -1) if layout.backdrop is None else layout.backdrop
                         for layout in layouts]
    return Layout(**{name: np.concatenate(arrays) for name, arrays in parts.items()})


def draw_detail(n: int, rng: np.random.Generator, canvas: int = 256) -> Layout:
    """Pictures full of objects, overlapping and cut off, on any colour. They teach the autoencoder
    more than scenes."""
    layout = draw_layout(n, rng, canvas, tries=1)
    used = np.arange(SLOTS)[None] < rng.integers(3, SLOTS + 1, n)[:, None]
    layout.concept = np.where(used, rng.integers(0, len(CONCEPTS), (n, SLOTS)), -1)
    layout.size = np.where(used, rng.integers(0, len(SIZES), (n, SLOTS)), -1)
    edge = np.where(used, np.array(SIZES)[layout.size], 0)
    layout.x, layout.y = (
        np.floor((-0.3 * edge + rng.random((n, SLOTS)) * (canvas - 0.4 * edge)) / GRID).astype(np.int32) * GRID
        for _ in range(2))
    free = rng.random(n) < 0.25
    layout.colour[free] = rng.integers(0, 256, (int(free.sum()), 1, 3))
    return layout


class Painter:
    """Paints layouts from the sprites of :func:`sprites.load`."""

    def __init__(self, atlas: np.ndarray, device: torch.device | str, backdrops: np.ndarray | None = None):
        """``backdrops`` are those of :func:`scenery.backdrops`, if layouts have any."""
        self.backdrops = None if backdrops is None else torch.from_numpy(backdrops).to(device).permute(0, 3, 1, 2)
        self.device = torch.device(device)
        self.edge = atlas.shape[2]
        self.atlas = torch.from_numpy(np.ascontiguousarray(atlas)).to(device).view(torch.int32).flatten()

    @torch.no_grad()
    def paint(self, layout: Layout, canvas: int = 256) -> tuple[torch.Tensor, torch.Tensor]:
        """Pictures ``[n, 3, canvas, canvas]`` in [-1, 1] and the visible share of every slot's
        object per pixel."""
        device, edge = self.device, self.edge
        n = len(layout.concept)
        colour = torch.from_numpy(layout.colour).to(device, torch.float32)
        blend = torch.linspace(0, 1, canvas, device=device).view(1, 1, canvas, 1)
        picture = (colour[:, 0, :, None, None] * (1 - blend) + colour[:, 1, :, None, None] * blend)
        picture = picture.expand(n, 3, canvas, canvas).clone()
        if layout.backdrop is not None:
            drawn = np.flatnonzero(layout.backdrop >= 0)
            picture[torch.from_numpy(drawn).to(device)] = self.backdrops[
                torch.from_numpy(layout.backdrop[drawn]).to(device)].float()
        slots = layout.concept.shape[1]
        alphas = torch.zeros(n, slots, canvas, canvas, device=device)
        axis = torch.arange(canvas, device=device)
        for slot in range(slots):
            rows = np.flatnonzero(layout.concept[:, slot] >= 0)
            if not len(rows):
                continue
            at = torch.from_numpy(rows).to(device)
            which = layout.concept[rows, slot] * len(SIZES) + layout.size[rows, slot]
            base = torch.from_numpy(which.astype(np.int64))
            u = axis[None] - torch.from_numpy(layout.x[rows, slot].astype(np.int64)).to(device)[:, None]
            v = axis[None] - torch.from_numpy(layout.y[rows, slot].astype(np.int64)).to(device)[:, None]
            inside = ((u >= 0) & (u < edge))[:, None, :] & ((v >= 0) & (v < edge))[:, :, None]
            place = v.clamp(0, edge - 1)[:, :, None] * edge + u.clamp(0, edge - 1)[:, None, :]
            packed = self.atlas[base.to(device)[:, None, None] * edge * edge + place]
            sprite = packed.masked_fill(~inside, 0).unsqueeze(-1).view(torch.uint8).permute(0, 3, 1, 2).float()
            alpha = sprite[:, 3:] / 255
            picture[at] = picture[at] * (1 - alpha) + sprite[:, :3]
            alphas[at] = alphas[at] * (1 - alpha)
            alphas[at, slot] = alpha[:, 0]
        return picture / 127.5 - 1, alphas

    def masks(self, layout: Layout, alphas: torch.Tensor, edge: int = 16) -> torch.Tensor:
        """The share of every cell that each group covers, ``[n, SLOTS, edge, edge]``, on a grid of
        ``edge`` × ``edge``."""
        cells = F.adaptive_avg_pool2d(alphas, edge)
        group = torch.from_numpy(layout.group).to(alphas.device)
        member = F.one_hot(group.clamp(min=0), SLOTS) * (group >= 0).unsqueeze(-1)  # [n, slot, group]
        return torch.einsum("nshw,nsg->nghw", cells, member.to(cells.dtype))


def captions(layout: Layout, encode: WordEncoder, rng: random.Random) -> list[Caption]:
    """One caption for every scene of a layout."""
    names = list(BACKGROUNDS)
    result = []
    for row in range(len(layout.concept)):
        named = layout.background[row]
        background = names[named] if named >= 0 else None
        words = compose(layout.groups(row), background, layout.direction(row), rng, layout.surroundings(row, rng))
        result.append(tokenise(words, encode))
    return result
