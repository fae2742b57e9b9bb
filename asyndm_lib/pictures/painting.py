"""A mask that a person paints: as a text, as a picture, and as its painted pixels."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io

import numpy as np
from PIL import Image

from ..errors import SettingsError
from ..settings.settings import MAX_MASK

MAX_PIXELS = 2**25
"""The most pixels of a mask, a little more than 7680 by 4320."""

_END = b"IEND\xaeB`\x82"
"""The last chunk of a PNG file."""

_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")
_PAINTED = 128
"""The least brightness, or opacity, of a painted pixel."""


def read(text: str) -> np.ndarray:
    """The painted pixels of a PNG picture in base64, bool ``[H, W]``.

    A data URL's beginning is passed over. Raises :class:`SettingsError` that says what is wrong.
    """
    if len(text) > MAX_MASK:
        raise SettingsError(f"Mask is {len(text)} characters long; at most {MAX_MASK} are read")
    encoded = text.partition(",")[2] if text.startswith("data:") else text
    try:
        data = base64.b64decode("".join(encoded.split()), validate=True)
    except (binascii.Error, ValueError):
        raise SettingsError(f"Mask must be a PNG picture in base64, not {text!r:.80}") from None
    return of_file(data)


def of_file(data: bytes) -> np.ndarray:
    """The painted pixels of a PNG file, as :func:`read` gives them."""
    try:
        picture = Image.open(io.BytesIO(data), formats=["PNG"])
    except Image.DecompressionBombError:
        raise SettingsError(f"Mask has too many pixels; at most {MAX_PIXELS} are read") from None
    except Exception:  # Pillow raises errors of many kinds
        raise SettingsError("Mask is no PNG picture") from None
    with picture:
        if picture.width * picture.height > MAX_PIXELS:  # before they are unpacked
            raise SettingsError(f"Mask has {picture.width}x{picture.height} pixels; at most {MAX_PIXELS} are read")
        if picture.mode not in _MODES:
            raise SettingsError(f"Mask is a picture of mode {picture.mode}; save it with eight bits per channel")
        try:
            if _END not in data:  # the WebUIs have Pillow read the beginning of one that is cut off
                raise EOFError
            picture.verify()
            with Image.open(io.BytesIO(data), formats=["PNG"]) as whole:
                return painted(whole)
        except Exception:
            raise SettingsError("Mask is a PNG picture that is cut off or broken") from None


def painted(picture: Image.Image) -> np.ndarray:
    """Which pixels are painted: those that are opaque in a picture with transparency, else the
    bright ones. The WebUIs read a mask to inpaint alike.
    """
    if "A" in picture.getbands() or "transparency" in picture.info:
        alpha = np.asarray(picture.convert("RGBA"))[..., 3]
        if alpha.min() < 255:
            return alpha >= _PAINTED
    return np.asarray(picture.convert("RGB").convert("L")) >= _PAINTED


def as_text(picture: Image.Image) -> str:
    """What :func:`read` reads of the painted pixels of ``picture``."""
    file = io.BytesIO()
    Image.fromarray(painted(picture)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def digest(pixels: np.ndarray) -> str:
    """A short name of painted pixels, which others hardly have."""
    own = hashlib.sha256(repr(pixels.shape).encode() + np.packbits(pixels).tobytes())
    return own.hexdigest()[:12]
