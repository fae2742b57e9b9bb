"""Measures of PNG bytes for the tests."""

from __future__ import annotations

import hashlib
import io

import numpy as np
from PIL import Image


def pixels(png: bytes) -> np.ndarray:
    """The pixels ``[height, width, 3]``, from 0 to 255 as float."""
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), dtype=np.float64)


def distance(one: bytes, other: bytes) -> float:
    """The mean absolute difference of the pixels, in levels of 255."""
    return float(np.abs(pixels(one) - pixels(other)).mean())


def same_pixels(one: bytes, other: bytes) -> bool:
    return np.array_equal(pixels(one), pixels(other))


def digest(png: bytes) -> str:
    """Of the pixels and the size, not of the file."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    return hashlib.md5(repr(image.size).encode() + image.tobytes()).hexdigest()


def has_content(png: bytes) -> bool:
    """Whether the picture is neither flat, as the host's NaN picture is, nor black and white
    everywhere."""
    values = pixels(png)
    saturated = ((values < 1) | (values > 254)).mean()
    return values.std() > 4 and saturated < 0.5


def infotext(png: bytes) -> str:
    return Image.open(io.BytesIO(png)).info["parameters"]


def size(png: bytes) -> tuple[int, int]:
    return Image.open(io.BytesIO(png)).size
