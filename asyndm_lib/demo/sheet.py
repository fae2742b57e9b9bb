"""The sheet of the ``generate`` command: pictures side by side, and below them the masks and
timesteps of some steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..pictures.drawing import FAINT, GAP, MARGIN, NARROW, WIDTH, Canvas, coloured, enlarged, masked, scaled
from ..pictures.film import Frame

LOOK = (
    "What to look at: in which of the pictures of a seed is everything that the prompt names, once and in its own form "
    "and colour? And are they as clean as the ordinary one?"
)


@dataclass(frozen=True)
class Picture:
    """One picture and its labels. ``pixels``: uint8 ``[H, W, 3]``."""

    name: str
    caption: str
    pixels: np.ndarray


@dataclass(frozen=True)
class SeedSection:
    """The part of the sheet for one seed: its pictures, and the steps of the last of them."""

    label: str
    pictures: Sequence[Picture]
    moments: Sequence[Frame]


def draw(title: str, lines: Sequence[str], sections: Sequence[SeedSection]) -> Image.Image:
    """The whole sheet as an RGB picture."""
    canvas = Canvas()
    y = canvas.wrapped(MARGIN, title, 34)
    for line in lines:
        y = canvas.wrapped(y + 4, line, 19, FAINT)
    y = canvas.wrapped(y + 10, LOOK, 19)
    for section in sections:
        canvas.rule(y + 18)
        y = _draw_section(canvas, y + 36, section) + 6
    return canvas.finish(y + MARGIN)


def _draw_section(canvas: Canvas, y: int, section: SeedSection) -> int:
    """Draw one seed's part at ``y`` and return its bottom."""
    inner = WIDTH - 2 * MARGIN
    side = (inner - 2 * GAP) // 3
    top = y
    for n, picture in enumerate(section.pictures):
        x = MARGIN + n * (side + GAP)
        canvas.text(x, top, picture.name, 25)
        canvas.text(x, top + 32, canvas.fit(f"{section.label} · {picture.caption}", 18, side), 18, FAINT)
        y = canvas.paste(x, top + 62, scaled(picture.pixels, side))
    width = (inner - (len(section.moments) - 1) * NARROW) // max(len(section.moments), 6)
    last = section.pictures[-1]
    y = canvas.text(MARGIN, y + 22, f"{last.name}: the places that lagged in the step, over the final picture", 20) + 8
    top = y
    for n, moment in enumerate(section.moments):
        x = MARGIN + n * (width + NARROW)
        y = canvas.paste(x, top, masked(last.pixels, moment.mask, width))
        whole = ": all" if moment.mask.all() else "" if moment.mask.any() else ": none"
        canvas.text(x, y + 4, moment.label + whole, 17)
    behind = f"{last.name}: how far each place was then (its timestep; a higher one is noisier)"
    y = canvas.text(MARGIN, y + 42, behind, 20) + 8
    most = max(moment.timesteps.max() for moment in section.moments)
    top = y
    for n, moment in enumerate(section.moments):
        x = MARGIN + n * (width + NARROW)
        y = canvas.paste(x, top, enlarged(coloured(moment.timesteps / most), width))
        low, high = moment.timesteps.min(), moment.timesteps.max()
        canvas.text(x, y + 4, f"{low:.0f} to {high:.0f}" if round(low) < round(high) else f"{low:.0f}", 17)
        canvas.text(x, y + 26, f"sigma {moment.sigma:.3g}", 17, FAINT)
    return canvas.legend(y + 62, most)
