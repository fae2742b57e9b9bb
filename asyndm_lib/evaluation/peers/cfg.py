"""Classifier-free guidance (Ho and Salimans 2022), and what its relatives have in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn


class Guidance:
    """``copies``: of the batch that the UNet is called with, whether each has the prompt; the first has it, the second
    not. ``read``: whether the token maps of a copy count. ``scale`` may be changed between steps."""

    copies: tuple[bool, ...] = (True, False)
    read: tuple[bool, ...] = (True, False)

    def __init__(self, scale: float):
        self.scale = scale

    @contextmanager
    def attached(self, unet: nn.Module) -> Iterator[None]:
        """Entered around a run; plain guidance needs nothing of the UNet."""
        yield

    def combine(self, outputs: Sequence[Tensor]) -> Tensor:
        """The model's outputs for the copies, ``[B, C, H, W]`` each → the guided one."""
        conditional, unconditional = outputs
        return unconditional + self.scale * (conditional - unconditional)
