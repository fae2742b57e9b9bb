"""The context curve as a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw

from ..pictures.drawing import FAINT, GAP, INK, MARGIN, PAPER, RULE, WIDTH, Canvas

PANEL = 190
"""The height of a panel in pixels."""

SHARES = (1, 1.5, 2, 3, 5, 10, 20, 50)
"""Where the lines across a panel are, as multiples of the error at one level."""

INKS = ((226, 59, 46), (122, 122, 130), (42, 120, 142), (34, 168, 132), (132, 32, 107), (229, 150, 20), (65, 68, 135))
"""The colours of the curves, in their order."""

Curves = Mapping[tuple[str, int], Mapping[str, Sequence[float]]]
"""Multiples of the error at one level, over the leads: by part of the picture and timestep, then by
name."""


def draw(curves: Curves, name: str, leads: Sequence[int]) -> Image.Image:
    """A panel for every part of the picture and timestep. ``leads`` are those behind 0."""
    parts, timesteps = (list(dict.fromkeys(keys)) for keys in zip(*curves, strict=True))
    values = [value for panel in curves.values() for line in panel.values() for value in line if math.isfinite(value)]
    lowest, highest = min([*values, 1.0]), max([*values, 2.0])
    width = (WIDTH - 2 * MARGIN - (len(timesteps) - 1) * GAP) // len(timesteps)
    canvas = Canvas()
    y = canvas.text(MARGIN, MARGIN, f"The context curve of {name}", 24)
    said = "Error of the prediction over the lead of the rest in timesteps, as a multiple of that at one level"
    y = canvas.text(MARGIN, y, said, 16, FAINT) + 8
    names = list(next(iter(curves.values())))
    for colour, line in zip(INKS, names, strict=False):
        y = canvas.text(MARGIN, y, f"- {line}", 16, colour)
    for part in parts:
        y = canvas.text(MARGIN, y + GAP, f"in the {part}", 19)
        for column, timestep in enumerate(timesteps):
            x = MARGIN + column * (width + GAP)
            panel = _panel(curves[part, timestep], (0, *leads), (width, PANEL), (lowest, highest))
            bottom = canvas.paste(x, y, panel)
            canvas.text(x, bottom + 2, f"targets at {timestep}; lead to {leads[-1]}", 13, FAINT)
        y = bottom + 20
    return canvas.finish(y + MARGIN)


def _panel(
    lines: Mapping[str, Sequence[float]], leads: Sequence[int], size: tuple[int, int], extent: tuple[float, float]
) -> Image.Image:
    width, height = size
    image = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(image)
    low, high = map(math.log, extent)

    def place(lead: float, value: float) -> tuple[float, float]:
        return 30 + (width - 34) * lead / leads[-1], 6 + (height - 12) * (high - math.log(value)) / (high - low)

    for share in SHARES:
        if extent[0] <= share <= extent[1]:
            across = [place(0, share), place(leads[-1], share)]
            pen.line(across, fill=INK if share == 1 else RULE)
            pen.text((0, across[0][1] - 6), f"{share:g}", fill=FAINT)
    for colour, values in zip(INKS, lines.values(), strict=False):
        points = [place(lead, value) for lead, value in zip(leads, values, strict=True) if math.isfinite(value)]
        pen.line(points, fill=colour, width=3, joint="curve")
    return image
