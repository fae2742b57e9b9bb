"""The sheet: pictures side by side, and under them the masks and timesteps of some steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

MARGIN, GAP, NARROW = 36, 24, 12
WIDTH = 1280
PAPER, INK, FAINT, RULE = (255, 255, 255), (28, 30, 36), (112, 116, 126), (224, 226, 231)
EDGE = (226, 59, 46)
"""Colour of a mask's outline."""

COLOURS = np.array(
    [(253, 231, 37), (122, 209, 81), (34, 168, 132), (42, 120, 142), (65, 68, 135), (68, 1, 84)], dtype=np.float64
)
"""The timestep scale from clean to noise: light to dark, told apart without colour vision too (viridis)."""


@dataclass(frozen=True)
class Picture:
    """``pixels``: uint8 ``[H, W, 3]``."""

    name: str
    caption: str
    pixels: np.ndarray


@dataclass(frozen=True)
class Moment:
    """One step: the host's sigma, the timestep of every latent pixel ``[h, w]``, and which were related ``[h, w]``."""

    label: str
    sigma: float
    timesteps: np.ndarray
    mask: np.ndarray


@dataclass(frozen=True)
class Block:
    """One seed's pictures, and the steps of the last of them."""

    label: str
    pictures: Sequence[Picture]
    moments: Sequence[Moment]


def draw(title: str, lines: Sequence[str], blocks: Sequence[Block]) -> Image.Image:
    """The sheet, RGB."""
    canvas = _Canvas()
    y = canvas.wrapped(MARGIN, title, 34)
    for line in lines:
        y = canvas.wrapped(y + 4, line, 19, FAINT)
    for block in blocks:
        canvas.rule(y + 18)
        y = _draw_block(canvas, y + 36, block) + 6
    return canvas.finish(y + MARGIN)


def _draw_block(canvas: _Canvas, y: int, block: Block) -> int:
    """Draws at ``y`` and returns where it ends."""
    inner = WIDTH - 2 * MARGIN
    side = (inner - 2 * GAP) // 3
    top = y
    for n, picture in enumerate(block.pictures):
        x = MARGIN + n * (side + GAP)
        canvas.text(x, top, picture.name, 25)
        canvas.text(x, top + 32, canvas.fit(f"{block.label} · {picture.caption}", 18, side), 18, FAINT)
        y = canvas.paste(x, top + 62, _scaled(picture.pixels, side))
    width = (inner - (len(block.moments) - 1) * NARROW) // max(len(block.moments), 6)
    last = block.pictures[-1]
    y = canvas.text(MARGIN, y + 22, f"{last.name}: mask of the step, over the final picture", 20) + 8
    top = y
    for n, moment in enumerate(block.moments):
        x = MARGIN + n * (width + NARROW)
        y = canvas.paste(x, top, _masked(last.pixels, moment.mask, width))
        whole = ": all" if moment.mask.all() else "" if moment.mask.any() else ": none"
        canvas.text(x, y + 4, moment.label + whole, 17)
    y = canvas.text(MARGIN, y + 42, f"{last.name}: timestep of every latent pixel", 20) + 8
    most = max(moment.timesteps.max() for moment in block.moments)
    top = y
    for n, moment in enumerate(block.moments):
        x = MARGIN + n * (width + NARROW)
        y = canvas.paste(x, top, _enlarged(_coloured(moment.timesteps / most), width))
        low, high = moment.timesteps.min(), moment.timesteps.max()
        canvas.text(x, y + 4, f"{low:.0f} to {high:.0f}" if round(low) < round(high) else f"{low:.0f}", 17)
        canvas.text(x, y + 26, f"sigma {moment.sigma:.3g}", 17, FAINT)
    return canvas.legend(y + 62, most)


class _Canvas:
    """A page of fixed width that is cut to length in the end."""

    def __init__(self) -> None:
        self._image = Image.new("RGB", (WIDTH, 2000), PAPER)
        self._draw = ImageDraw.Draw(self._image)

    def finish(self, height: int) -> Image.Image:
        self._reserve(height)
        return self._image.crop((0, 0, WIDTH, height))

    def _reserve(self, bottom: int) -> None:
        if bottom > self._image.height:
            longer = Image.new("RGB", (WIDTH, bottom + 2000), PAPER)
            longer.paste(self._image)
            self._image, self._draw = longer, ImageDraw.Draw(longer)

    def text(self, x: int, y: int, text: str, size: int, colour: tuple[int, int, int] = INK) -> int:
        """One line with its top at ``y``; returns its bottom."""
        self._reserve(y + 2 * size)
        self._draw.text((x, y), _printable(text), fill=colour, font=_font(size))
        return y + round(size * 1.25)

    def wrapped(self, y: int, text: str, size: int, colour: tuple[int, int, int] = INK) -> int:
        """Up to three lines over the whole width; returns the bottom."""
        width, words = WIDTH - 2 * MARGIN, text.split()
        for left in (2, 1, 0):
            line = " ".join(words)
            while left and self._length(line, size) > width and " " in line:
                line = line.rpartition(" ")[0]
            y = self.text(MARGIN, y, self.fit(line, size, width), size, colour)
            words = words[len(line.split()) :]
            if not words:
                break
        return y

    def fit(self, text: str, size: int, width: int) -> str:
        """``text``, cut where it is wider than ``width``."""
        if self._length(text, size) <= width:
            return text
        text = text[: 4 * width // max(size // 4, 1)]
        while text and self._length(text + "...", size) > width:
            text = text[:-1]
        return text + "..."

    def _length(self, text: str, size: int) -> float:
        return self._draw.textlength(_printable(text), font=_font(size))

    def paste(self, x: int, y: int, pixels: Image.Image) -> int:
        """Returns the bottom."""
        self._reserve(y + pixels.height)
        self._image.paste(pixels, (x, y))
        return y + pixels.height

    def rule(self, y: int) -> None:
        self._reserve(y + 1)
        self._draw.line((MARGIN, y, WIDTH - MARGIN, y), fill=RULE)

    def legend(self, y: int, most: float) -> int:
        """The colour scale of the timesteps from 0 to ``most``; returns the bottom."""
        x = self._length("clean  0 ", 17) + MARGIN + 8
        self.text(MARGIN, y, "clean  0", 17, FAINT)
        scale = Image.fromarray(_coloured(np.linspace(0, 1, 420)[None].repeat(18, axis=0)))
        self.paste(round(x), y + 2, scale)
        return self.text(round(x) + scale.width + 8, y, f"{most:.0f}  noise (timestep)", 17, FAINT)


def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    try:
        return ImageFont.load_default(size)
    except (TypeError, OSError):  # Pillow before 10.1, or without FreeType: one small bitmap font
        return ImageFont.load_default()


def _printable(text: str) -> str:
    """What every default font of Pillow can draw."""
    return text.encode("latin-1", "replace").decode("latin-1")


def _scaled(pixels: np.ndarray, width: int) -> Image.Image:
    height = max(1, round(width * pixels.shape[0] / pixels.shape[1]))
    return Image.fromarray(pixels).resize((width, height), Image.LANCZOS)


def _enlarged(pixels: np.ndarray, width: int) -> Image.Image:
    height = max(1, round(width * pixels.shape[0] / pixels.shape[1]))
    return Image.fromarray(pixels).resize((width, height), Image.NEAREST)


def _coloured(share: np.ndarray) -> np.ndarray:
    """Shares of the scale, 0 … 1 ``[h, w]`` → uint8 ``[h, w, 3]``."""
    at = np.clip(share, 0, 1) * (len(COLOURS) - 1)
    channels = [np.interp(at, np.arange(len(COLOURS)), COLOURS[:, c]) for c in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def _masked(pixels: np.ndarray, mask: np.ndarray, width: int) -> Image.Image:
    """The picture with what is outside the mask dimmed to grey, and the mask outlined."""
    small = np.asarray(_scaled(pixels, width)).astype(np.float64)
    inside = np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).resize((width, small.shape[0]), Image.NEAREST)) > 0
    grey = 0.3 * small.mean(axis=-1, keepdims=True) + 0.7 * 110
    out = np.where(inside[..., None], small, grey)
    edge = np.zeros_like(inside)
    edge[1:] |= inside[1:] != inside[:-1]
    edge[:, 1:] |= inside[:, 1:] != inside[:, :-1]
    out[edge] = EDGE
    return Image.fromarray(out.round().astype(np.uint8))
