"""Rasterise the emoji pictures of every concept, at every size a scene uses, into one array file.

The source is the npm package ``@iconify-json/fluent-emoji-flat`` (Microsoft's Fluent Emoji, flat
style, MIT). Its ``package/icons.json`` comes from ``npm pack @iconify-json/fluent-emoji-flat && tar
xzf iconify-json-fluent-emoji-flat-*.tgz``. ``resvg_py`` is needed.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from PIL import Image

from ...errors import AsynDMError
from .concepts import CONCEPTS, Concept

SIZES: tuple[int, ...] = tuple(range(64, 145, 16))
"""Edge lengths in pixels. Sprites are drawn at their final size, so that scenes need no
resampling."""


def rasterise(icons: dict, icon: str, size: int) -> np.ndarray:
    """The picture of one icon, ``uint8 [size, size, 4]`` with straight alpha."""
    import resvg_py

    entry = icons["icons"].get(icon) or icons["icons"][icons["aliases"][icon]["parent"]]
    svg = (f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
           f'viewBox="0 0 {icons["width"]} {icons["height"]}" width="{size}" height="{size}">{entry["body"]}</svg>')
    png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size))
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"))


def build(icons_json: Path, target: Path, concepts: Sequence[Concept] = CONCEPTS) -> None:
    """Write ``target`` (npz), which has an array ``[concepts, size, size, 4]`` with premultiplied
    alpha per size.

    Raises :class:`AsynDMError` for an ``icons_json`` of another package.
    """
    try:
        icons = json.loads(icons_json.read_text(encoding="utf-8"))
        lost = [one.icon for one in concepts if one.icon not in {*icons["icons"], *icons["aliases"]}]
    except (ValueError, KeyError, TypeError) as error:
        raise AsynDMError(f"{icons_json} is no icons.json of @iconify-json/fluent-emoji-flat") from error
    if lost:
        raise AsynDMError(f"{icons_json} lacks {lost[0]!r}: take version 1.2.6 of the package")
    arrays = {}
    for size in SIZES:
        stack = np.stack([rasterise(icons, concept.icon, size) for concept in concepts]).astype(np.float32)
        stack[..., :3] *= stack[..., 3:] / 255
        arrays[f"s{size}"] = stack.round().astype(np.uint8)
    target.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(target, **arrays)


def load(path: Path) -> np.ndarray:
    """All sprites, ``uint8 [concepts, sizes, edge, edge, 4]``, aligned at the top left, with
    premultiplied alpha.

    Raises :class:`AsynDMError` for a file that :func:`build` did not write.
    """
    edge = SIZES[-1]
    try:
        with np.load(path) as data:
            atlas = np.zeros((len(data[f"s{edge}"]), len(SIZES), edge, edge, 4), np.uint8)
            for index, size in enumerate(SIZES):
                atlas[:, index, :size, :size] = data[f"s{size}"]
    except (OSError, ValueError, KeyError, TypeError, EOFError, AttributeError, BadZipFile) as error:
        raise AsynDMError(f"--sprites {path} is no file of the stage sprites: {error}") from error
    return atlas
