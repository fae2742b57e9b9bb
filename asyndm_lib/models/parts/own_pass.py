"""Which of the passes through a UNet's blocks is its caller's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Passes:
    """Tells whether the blocks of a UNet work on the batch that the UNet was called with (:attr:`own`).

    An extension that replaces the UNet's ``forward`` may send a batch of its own through the blocks within the
    same call, as ControlNet's reference-only does with its picture. That pass is known by its input.
    """

    def __init__(self, unet: nn.Module):
        self._unet = unet
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self.own = True
        self._x: Tensor | None = None
        self._seen = 0
        self._always = False

    def attach(self) -> None:
        self._handles = [
            self._unet.register_forward_pre_hook(self._called, with_kwargs=True),
            self._unet.input_blocks[0].register_forward_pre_hook(self._begun),
            self._unet.register_forward_hook(self._done),
        ]

    def detach(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._x, self.own = None, True

    def _called(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        replaced = "forward" in vars(module)  # the model's own makes one pass
        self._x = (args[0] if args else kwargs["x"]) if replaced and not self._always else None
        self.own, self._seen = True, 0

    def _begun(self, module: nn.Module, args: tuple) -> None:
        if self._x is not None:
            self.own = _same(args[0], self._x)
            self._seen += self.own

    def _done(self, module: nn.Module, args: tuple, output: Any) -> None:
        # Whoever changes the batch itself on its way in leaves nothing to know it by.
        self._always |= self._x is not None and not self._seen
        self._x, self.own = None, True


def _same(h: Tensor, x: Tensor) -> bool:
    """Whether ``h``, which enters the blocks, is ``x`` (perhaps in another precision or size)."""
    return h is x or h.shape != x.shape or torch.equal(h, x.to(h))
