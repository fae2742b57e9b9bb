"""Classifier-free guidance (Ho and Salimans 2022), and what its relatives have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn


class Guidance:
    """Classifier-free guidance of strength ``scale``, which may be changed between steps.

    The UNet is called with a copy of the batch per entry of ``copies``, which says whether that
    copy has the prompt. The first copy has it, the second has not. ``read`` says whether a copy's
    token maps count.
    """

    copies: tuple[bool, ...] = (True, False)
    read: tuple[bool, ...] = (True, False)

    def __init__(self, scale: float):
        self.scale = scale

    @contextmanager
    def attached(self, unet: nn.Module) -> Iterator[None]:
        """Attach what the guidance needs to the UNet, for the time of a run. Plain guidance needs
        nothing."""
        yield

    def prepared(self, x: Tensor, conditional: Callable[[Tensor], Tensor]) -> Tensor:
        """The latent ``[B, C, H, W]`` that a prediction for ``x`` is made of. Plain guidance takes
        ``x`` itself.

        ``conditional(x)`` is the model's output with the prompt.
        """
        return x

    def combine(self, outputs: Sequence[Tensor]) -> Tensor:
        """The guided output, from the model's outputs for the copies, ``[B, C, H, W]`` each."""
        conditional, unconditional = outputs
        return unconditional + self.scale * (conditional - unconditional)
