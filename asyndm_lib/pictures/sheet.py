"""The sheet of one result: which pixels lagged, when, and where each target was found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from .drawing import (
    FAINT,
    GAP,
    MARGIN,
    NARROW,
    WIDTH,
    Canvas,
    Fonts,
    coloured,
    default_font,
    enlarged,
    heated,
    masked,
    outlined,
    timestep,
)
from .film import Frame, Heat, Reel

TITLE = "AsynDM: what lagged"
FRAMES = 12
"""How many steps the film strip shows."""
TARGETS = 11
"""How many targets' token maps are shown."""

LARGE, SMALL = (284, 340), (190, 250)
"""The widest and highest picture: under a mask or a token map, and as a frame of the film strip."""
LABEL = {LARGE: 19, SMALL: 16}
NARROWEST = {LARGE: 190, SMALL: 132}
"""The room that a narrow picture leaves for its labels."""


def draw(picture: Image.Image, reel: Reel, lines: Sequence[str], fonts: Fonts = default_font) -> Image.Image:
    """The sheet as an RGB picture. ``lines`` say what the picture was made with."""
    pixels = np.asarray(picture.convert("RGB"))
    canvas = Canvas(fonts)
    y = canvas.text(MARGIN, MARGIN, TITLE, 34)
    for line in lines:
        y = canvas.wrapped(y + 4, line, 19, FAINT)
    canvas.rule(y + 14)
    title = reel.kind.capitalize() + (", and where the model saw each target" if reel.heats else "")
    y = canvas.text(MARGIN, y + 30, f"{title}, over the result", 22) + 10
    y = _large(canvas, y, pixels, reel)
    y = canvas.text(MARGIN, y + 20, "Timestep of every latent pixel, with the outline of the step's mask", 22) + 10
    return canvas.finish(_film(canvas, y, reel.frames, pixels) + MARGIN)


def _large(canvas: Canvas, y: int, pixels: np.ndarray, reel: Reel) -> int:
    """Draw the mask and the token maps, and return their bottom."""
    shown = reel.heats[:TARGETS]
    width, columns = _cell(pixels, LARGE)
    of = reel.frames[0].total
    step = f"step {reel.step + 1} of {of}"
    cells = [(masked(pixels, reel.mask, width), f"{reel.kind} of {step}", f"{_share(reel.mask)} of the pixels lag")]
    cells += [(_heat(pixels, heat, width), heat.name, f"up to {heat.times.max():.1f} times its mean") for heat in shown]
    y = _grid(canvas, y, cells, LARGE, columns)
    hidden = [heat.name for heat in reel.heats[TARGETS:]]
    if hidden:
        y = canvas.wrapped(y + 4, f"and {len(hidden)} more: {', '.join(hidden)}", 19, FAINT)
    return y


def _heat(pixels: np.ndarray, heat: Heat, width: int) -> Image.Image:
    return heated(pixels, heat.times / heat.times.max(), width)


def _film(canvas: Canvas, y: int, frames: Sequence[Frame], pixels: np.ndarray) -> int:
    width, columns = _cell(pixels, SMALL)
    most = max(frame.timesteps.max() for frame in frames)
    cells = []
    for frame in frames:
        tile = np.asarray(enlarged(coloured(frame.timesteps / most), width))
        low, high = frame.timesteps.min(), frame.timesteps.max()
        ends = [timestep(level, most) for level in (low, high)]
        span = " to ".join(dict.fromkeys(ends))
        whole = ": all" if frame.mask.all() else "" if frame.mask.any() else ": none"
        image = Image.fromarray(outlined(tile, frame.mask))
        cells.append((image, frame.label + whole, span, f"sigma {frame.sigma:.3g}"))
    return canvas.legend(_grid(canvas, y, cells, SMALL, columns) + 4, most)


def _cell(pixels: np.ndarray, most: tuple[int, int]) -> tuple[int, int]:
    """The width of a picture in a cell, and the number of cells in a row."""
    height, width = pixels.shape[:2]
    fitting = max(1, min(most[0], round(most[1] * width / height)))
    return fitting, (WIDTH - 2 * MARGIN + _gap(most)) // (max(fitting, NARROWEST[most]) + _gap(most))


def _gap(most: tuple[int, int]) -> int:
    return GAP if most is LARGE else NARROW


def _grid(
    canvas: Canvas, y: int, cells: Sequence[tuple[Image.Image | str, ...]], most: tuple[int, int], columns: int
) -> int:
    """Draw rows of pictures with their labels, and return the bottom."""
    size, gap = LABEL[most], _gap(most)
    room = (WIDTH - 2 * MARGIN + gap) // columns - gap
    for row in _rows(cells, columns):
        for n, (image, *labels) in enumerate(row):
            x = MARGIN + n * (room + gap)
            bottom = canvas.paste(x, y, image) + 4
            for number, label in enumerate(labels):
                colour = {"colour": FAINT} if number else {}
                bottom = canvas.text(x, bottom, canvas.fit(label, size, room), size, **colour)
        y = bottom + 12
    return y


def _rows(cells: Sequence, columns: int) -> Iterator[Sequence]:
    for start in range(0, len(cells), columns):
        yield cells[start : start + columns]


def _share(mask: np.ndarray) -> str:
    share = 100 * mask.mean()
    return "none" if not share else f"{share:.0f} %" if share >= 1 else "under 1 %"
