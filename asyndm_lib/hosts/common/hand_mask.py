"""The mask by hand of a sampling call: what was painted, or what the host is to inpaint."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...errors import SettingsError
from ...pictures import painting
from ...settings.settings import INPAINT_MASK, Settings

_SIDE = 8
"""The pixels that the host counts for one of the latent where it cuts a second pass to size."""


class HandMask(NamedTuple):
    """``painted`` is bool ``[H, W]``, of any size, to be stretched over the picture that is
    sampled. ``digest`` names the whole mask, of which that may be a part.
    """

    painted: Tensor
    digest: str


def of(p: Any, settings: Settings) -> HandMask | None:
    """The mask of the coming sampling call of the host's ``p``; None where words alone count.

    Raises :class:`SettingsError` if there is none, or if it cannot be read.
    """
    if not settings.by_hand:
        return None
    if settings.region == INPAINT_MASK:
        inpainted = _inpainted(p)
        return HandMask(torch.from_numpy(inpainted), painting.digest(inpainted))
    if not settings.mask:
        raise SettingsError("no mask is painted; paint one, or set Region to words")
    whole = painting.read(settings.mask)
    return HandMask(torch.from_numpy(_sampled(p, whole)), painting.digest(whole))


def _inpainted(p: Any) -> np.ndarray:
    """The latent pixels that are made anew, as the host has them: inverted, and cut, if asked."""
    mask = getattr(p, "nmask", None)
    if mask is None:
        raise SettingsError("there is no inpaint mask; inpaint a picture in img2img, or set Region to words")
    of_latent: np.ndarray = mask.detach().float().cpu().flatten(0, -3)[0].numpy() >= 0.5
    return of_latent


def _sampled(p: Any, whole: np.ndarray) -> np.ndarray:
    """The part of ``whole``, a mask of the whole picture, that ``p`` samples."""
    height, width = whole.shape
    left, top, right, bottom = _window(p)
    rows = slice(min(round(top * height), height - 1), max(round(bottom * height), 1))
    columns = slice(min(round(left * width), width - 1), max(round(right * width), 1))
    return np.ascontiguousarray(whole[rows, columns])


def _window(p: Any) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of what ``p`` samples, as shares of the whole picture."""
    if getattr(p, "is_hr_pass", False):  # what does not fit its size is cut off
        x, y = p.truncate_x * _SIDE / p.hr_upscale_to_x, p.truncate_y * _SIDE / p.hr_upscale_to_y
        return x / 2, y / 2, 1 - x / 2, 1 - y / 2
    if getattr(p, "paste_to", None):  # the masked part only, enlarged
        left, top, width, height = p.paste_to
        of = p.init_images[0]
        return left / of.width, top / of.height, (left + width) / of.width, (top + height) / of.height
    return 0.0, 0.0, 1.0, 1.0
