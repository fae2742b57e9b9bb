"""What lags just now, outlined in the host's live preview."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from modules import images, shared
from PIL import Image
from torch import Tensor

from ...models.parts.patching import replaced
from ...pictures.drawing import enlarged, outlined
from ...run.step import Seen

LEAST = 4
"""Pixels of the preview for one of the latent: the quick previews have only one, on which an outline would hide all."""

_RELATED = (1, 2, 3)
"""No colour that the host fills the empty cells of a grid with."""


class LiveView:
    """An observer of :class:`run.Run`. The host asks for previews from another thread, whenever the page does."""

    def __init__(self) -> None:
        self._related: Tensor | None = None

    def __call__(self, seen: Seen) -> None:
        if seen.mask is not None:
            self._related = seen.mask.related

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Inside the ``with`` the host's previews have the outline, whichever way it makes them."""
        with replaced(shared.state, "assign_current_image", partial(self._assign, shared.state.assign_current_image)):
            yield

    def _assign(self, original: Callable[[Any], None], image: Image.Image) -> None:
        related = self._related
        original(image if related is None else _outlined(image, related[:, 0].cpu().numpy()))


def _outlined(image: Image.Image, related: np.ndarray) -> Image.Image:
    """``related``: bool ``[B, h, w]``. The preview shows the first picture of the batch, or all in a grid."""
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
