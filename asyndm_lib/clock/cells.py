"""Cells: what has a noise level of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import TakenApart


def sent(values: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """``values`` on ``device``, in ``dtype`` or their own.

    They are rounded before they are sent, and to :func:`precision` at the most.
    """
    dtype = dtype or values.dtype
    if dtype == torch.float64:
        dtype = precision(device)
    return values.to(dtype).to(device)


def precision(device: torch.device) -> torch.dtype:
    """Double precision on the CPU only: Apple's, Intel's and DirectML's GPUs have none."""
    return torch.float64 if device.type == "cpu" else torch.float32


class Box(NamedTuple):
    """A rectangle of latent pixels."""

    top: int
    left: int
    height: int
    width: int

    def of(self, map: Tensor) -> Tensor:
        """The box of ``map [..., H, W]``, a view ``[..., height, width]``."""
        return map[..., self.top : self.top + self.height, self.left : self.left + self.width]

    def within(self, outer: Box) -> Box:
        """Where this box, of the pixels of ``outer``, is in the latent."""
        return Box(outer.top + self.top, outer.left + self.left, self.height, self.width)


def box_of(piece: Tensor, picture: Tensor) -> Box | None:
    """The box of ``picture [C, H, W]`` or ``[C, 1, H, W]`` that ``piece`` was cut out of.

    None if it is no part of the picture, or several.
    """
    piece, picture = piece.flatten(0, -3), picture.flatten(0, -3)
    _, h, w = piece.shape
    if h > picture.shape[-2] or w > picture.shape[-1]:
        return None
    picture = picture.to(piece.dtype)
    corners = picture[:, : picture.shape[-2] - h + 1, : picture.shape[-1] - w + 1] == piece[:, :1, :1]
    boxes = [Box(top, left, h, w) for top, left in corners.all(dim=0).nonzero().tolist()]
    found = [box for box in boxes if torch.equal(box.of(picture), piece)]
    return found[0] if len(found) == 1 else None


@dataclass(frozen=True)
class Cells:
    """The cells of a batch of latents.

    ``images`` latents have ``height`` × ``width`` pixels. A cell is a square of ``side`` pixels, or
    less at the right and bottom edges, where a model pads a latent whose size does not divide.
    ``device`` is that of all maps. ``dims`` is how many dimensions the latents have: 4, or 5 with
    one for their only frame, ``[B, C, 1, H, W]``.
    """

    images: int
    height: int
    width: int
    side: int
    device: torch.device
    dims: int = 4

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The shape of a map of cells, ``[B, 1, h, w]``."""
        return self.images, 1, *self.size

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of cells."""
        return -(-self.height // self.side), -(-self.width // self.side)

    def box(self, box: Box) -> Box:
        """The cells of a ``box`` of pixels. Raises :class:`TakenApart` if it begins within a cell.
        """
        side = self.side
        if side == 1:
            return box
        if box.top % side or box.left % side:
            raise TakenApart
        return Box(box.top // side, box.left // side, -(-box.height // side), -(-box.width // side))

    def pixels(self, map: Tensor) -> Tensor:
        """A map of cells ``[B, 1, h, w]`` at every latent pixel, ``[B, 1, H, W]``."""
        if self.side == 1:
            return map
        for dim in (-2, -1):
            map = map.repeat_interleave(self.side, dim)
        return map[..., : self.height, : self.width]

    def latents(self, map: Tensor) -> Tensor:
        """The same with as many dimensions as the latents have, ``[B, 1, H, W]`` or ``[B, 1, 1, H,
        W]``.
        """
        pixels = self.pixels(map)
        return pixels if self.dims == 4 else pixels.unsqueeze(2)
