"""Drawing for the method's pictures: a page of fixed width, text in any script, maps and masks in
colour."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFont

MARGIN, GAP, NARROW = 36, 24, 12
WIDTH = 1280
PAPER, INK, FAINT, RULE = (255, 255, 255), (28, 30, 36), (112, 116, 126), (224, 226, 231)
EDGE = (226, 59, 46)
"""The colour of a mask's outline."""

COLOURS = np.array(
    [(253, 231, 37), (122, 209, 81), (34, 168, 132), (42, 120, 142), (65, 68, 135), (68, 1, 84)], dtype=np.float64
)
"""The colours of the timestep scale from clean to noise. They go from light to dark and can be told
apart without colour vision (viridis)."""

HEAT = np.array([(20, 11, 52), (132, 32, 107), (229, 92, 48), (246, 215, 70), (252, 255, 164)], dtype=np.float64)
"""The colours of a token map from none to most, dark to light (inferno)."""

Font = ImageFont.ImageFont | ImageFont.FreeTypeFont
Fonts = Callable[[int], Font]
"""A font for each size."""


@functools.cache
def default_font(size: int) -> Font:
    """Pillow's own font, which is always there."""
    try:
        return ImageFont.load_default(size)
    except (TypeError, OSError):  # Pillow before 10.1, or without FreeType: one small bitmap font
        return ImageFont.load_default()


class Canvas:
    """A page of fixed width that is cut to its length at the end."""

    def __init__(self, fonts: Fonts = default_font) -> None:
        self._fonts = fonts
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
        """Write one line with its top at ``y``, and return its bottom."""
        self._reserve(y + 2 * size)
        font = self._fonts(size)
        text = printable(text, font)
        if isinstance(font, ImageFont.FreeTypeFont):
            self._draw.text((x, y), text, fill=colour, font=font)
        elif text:
            self._image.paste(colour, (x, y), _enlarged_text(text, font, size))
        return y + round(size * 1.25)

    def wrapped(self, y: int, text: str, size: int, colour: tuple[int, int, int] = INK) -> int:
        """Write up to three lines over the whole width, and return the bottom."""
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
        """``text``, cut off where it is wider than ``width``."""
        if self._length(text, size) <= width:
            return text
        text = text[: 4 * width // max(size // 4, 1)]
        while text and self._length(text + "...", size) > width:
            text = text[:-1]
        return text + "..."

    def _length(self, text: str, size: int) -> float:
        font = self._fonts(size)
        length = self._draw.textlength(printable(text, font), font=font)
        return length if isinstance(font, ImageFont.FreeTypeFont) else length * size / BITMAP_SIZE

    def paste(self, x: int, y: int, pixels: Image.Image) -> int:
        """Put a picture with its top left corner at ``x`` and ``y``, and return its bottom."""
        self._reserve(y + pixels.height)
        self._image.paste(pixels, (x, y))
        return y + pixels.height

    def rule(self, y: int) -> None:
        self._reserve(y + 1)
        self._draw.line((MARGIN, y, WIDTH - MARGIN, y), fill=RULE)

    def legend(self, y: int, most: float) -> int:
        """Draw the colour scale of the timesteps from 0 to ``most``, and return its bottom."""
        x = self._length("clean  0 ", 17) + MARGIN + 8
        self.text(MARGIN, y, "clean  0", 17, FAINT)
        scale = Image.fromarray(coloured(np.linspace(0, 1, 420)[None].repeat(18, axis=0)))
        self.paste(round(x), y + 2, scale)
        return self.text(round(x) + scale.width + 8, y, f"{timestep(most, most)}  noise (timestep)", 17, FAINT)


def timestep(value: float, most: float) -> str:
    """``value`` on a scale to ``most``, which for some models is 1000 and for others 1."""
    return f"{value:.0f}" if most > 10 else f"{value:.3f}"


BITMAP_SIZE = 12
"""The size of Pillow's bitmap font."""


def _enlarged_text(text: str, font: Font, size: int) -> Image.Image:
    """The coverage of ``text``, from 0 to 255, at ``size``."""
    small = Image.new("L", (max(1, round(font.getlength(text))), BITMAP_SIZE))
    ImageDraw.Draw(small).text((0, 0), text, fill=255, font=font)
    scale = size / BITMAP_SIZE
    return small.resize((max(1, round(small.width * scale)), round(small.height * scale)), Image.Resampling.BILINEAR)


def printable(text: str, font: Font) -> str:
    """``text`` with escapes such as ``\\u732b`` for broken and control characters, and where
    ``font`` has no sign."""
    return "".join(c if " " <= c <= "~" or _has(font, c) else c.encode("unicode_escape").decode() for c in text)


@functools.lru_cache(maxsize=4096)
def _has(font: Font, char: str) -> bool:
    if not char.isprintable():
        return False
    if not isinstance(font, ImageFont.FreeTypeFont):
        return ord(char) < 256
    absent = font.getmask("\uffff")
    return (bytes(font.getmask(char)), font.getbbox(char)) != (bytes(absent), font.getbbox("\uffff"))


def scaled(pixels: np.ndarray, width: int) -> Image.Image:
    """A picture at another width, interpolated."""
    return Image.fromarray(pixels).resize((width, _height(pixels, width)), Image.Resampling.LANCZOS)


def enlarged(pixels: np.ndarray, width: int) -> Image.Image:
    """A map at another width, pixel by pixel."""
    return Image.fromarray(pixels).resize((width, _height(pixels, width)), Image.Resampling.NEAREST)


def _height(pixels: np.ndarray, width: int) -> int:
    return max(1, round(width * pixels.shape[0] / pixels.shape[1]))


def coloured(share: np.ndarray, colours: np.ndarray = COLOURS) -> np.ndarray:
    """The colours, uint8 ``[h, w, 3]``, of values on the scale, 0 to 1 ``[h, w]``."""
    at = np.clip(share, 0, 1) * (len(colours) - 1)
    channels = [np.interp(at, np.arange(len(colours)), colours[:, c]) for c in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def masked(pixels: np.ndarray, mask: np.ndarray, width: int) -> Image.Image:
    """The picture with everything outside the mask dimmed to grey, and the mask outlined."""
    small = np.asarray(scaled(pixels, width)).astype(np.float64)
    inside = _resized(mask, small)
    grey = 0.3 * small.mean(axis=-1, keepdims=True) + 0.7 * 110
    out = np.where(inside[..., None], small, grey)
    out[outline(inside)] = EDGE
    return Image.fromarray(out.round().astype(np.uint8))


def outlined(pixels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The picture, uint8 ``[H, W, 3]``, with the mask's outline and no other change."""
    out = pixels.copy()
    out[outline(_resized(mask, pixels))] = EDGE
    return out


def heated(pixels: np.ndarray, share: np.ndarray, width: int) -> Image.Image:
    """The picture, grey and dimmed, under a token map. ``share`` is the map over its maximum, 0 to
    1 ``[h, w]``."""
    small = np.asarray(scaled(pixels, width)).astype(np.float64)
    grey = 0.45 * small.mean(axis=-1, keepdims=True)
    image = Image.fromarray(np.clip(share * 255, 0, 255).round().astype(np.uint8))
    share = np.asarray(image.resize((width, small.shape[0]), Image.Resampling.NEAREST)).astype(np.float64) / 255
    weight = 0.85 * np.sqrt(share)[..., None]
    out = (1 - weight) * grey + weight * coloured(share, HEAT)
    return Image.fromarray(out.round().astype(np.uint8))


def outline(inside: np.ndarray) -> np.ndarray:
    """The border of a region, bool ``[h, w]`` both."""
    edge = np.zeros_like(inside)
    edge[1:] |= inside[1:] != inside[:-1]
    edge[:, 1:] |= inside[:, 1:] != inside[:, :-1]
    return edge


def _resized(mask: np.ndarray, like: np.ndarray) -> np.ndarray:
    """The mask ``[h, w]`` at the size of a picture, bool."""
    image = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(image.resize((like.shape[1], like.shape[0]), Image.Resampling.NEAREST)) > 0
