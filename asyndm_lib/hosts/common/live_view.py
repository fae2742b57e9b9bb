"""An outline in the host's live preview around what lags just now."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
from modules import images, shared
from PIL import Image
from torch import Tensor

from ...errors import fault
from ...models.parts.patching import replaced
from ...pictures.drawing import enlarged, outlined
from ...run.step import Seen

LEAST = 4
"""The fewest pixels of a preview for one of the latent.

The quick previews have only one, on which an outline would hide all.
"""

_RELATED = (1, 2, 3)
"""A colour with which the host fills no empty cell of a grid."""


class LiveView:
    """An observer of a run, inside whose ``with`` the host's previews have the outline.

    It works whichever way the host makes them. The host asks for previews from another thread,
    whenever the page does.
    """

    def __init__(self) -> None:
        self._related: Tensor | None = None
        self._patched = ExitStack()

    def __call__(self, seen: Seen) -> None:
        if seen.mask is not None:
            self._related = seen.mask.related

    def __enter__(self) -> None:
        assign = partial(self._assign, shared.state.assign_current_image)
        self._patched.enter_context(replaced(shared.state, "assign_current_image", assign))

    def __exit__(self, *exception: object) -> None:
        self._patched.close()

    def _assign(self, original: Callable[[Any], None], image: Image.Image) -> None:
        related = self._related
        if related is not None:
            try:
                image = _outlined(image, related[:, 0].cpu().numpy())
            except Exception as error:  # the host's own thread, which would show no previews any more
                print(f"AsynDM: {fault(error)}. The preview is without the outline.")
        original(image)


def _outlined(image: Image.Image, related: np.ndarray) -> Image.Image:
    """``image`` with the outline of ``related``, bool ``[B, h, w]``.

    The preview shows the first picture of the batch, or all in a grid.
    """
    if not shared.opts.show_progress_grid:
        mask = related[0]
    else:
        cells = [Image.fromarray(own[..., None] * np.array(_RELATED, dtype=np.uint8)) for own in related]
        grid = images.image_grid(cells).convert("RGB")  # laid out as the host's own, which may have an alpha channel
        mask = (np.asarray(grid) == _RELATED).all(axis=-1)
    pixels = np.asarray(image.convert("RGB"))
    if image.width < LEAST * mask.shape[1]:
        pixels = np.asarray(enlarged(pixels, LEAST * mask.shape[1]))
    return Image.fromarray(outlined(pixels, mask))
