"""The pass through a model's blocks that belongs to the model's caller."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...clock.cells import box_of
from ...errors import TakenApart


class OwnPass:
    """Whether the blocks of a model work on the batch that the model was called with
    (:attr:`here`), and the prompts of that batch (:attr:`context`, ``[N, L, C]``).

    An extension that replaces the model's ``forward`` may send a batch of its own through the
    blocks within the same call, as ControlNet's reference-only does with its picture. The caller's
    pass is known by its input. One that sends the batch through in pieces is met with
    :class:`errors.TakenApart`. ``batch`` is the model's, in a call of it; ``calls`` counts them.
    """

    def __init__(self, model: nn.Module, entrance: nn.Module | None = None):
        """``entrance`` is the module of ``model`` that takes the batch first. Without one every
        pass is the caller's.
        """
        self._model, self._entrance = model, entrance
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self.here = True
        self.context: Tensor | None = None
        self.batch: Tensor | None = None
        self.calls = 0
        self._x: Tensor | None = None
        self._seen = 0
        self._always = False

    def attach(self) -> None:
        """Watch the model."""
        self._handles = [
            self._model.register_forward_pre_hook(self._called, with_kwargs=True),
            self._model.register_forward_hook(self._done),
        ]
        if self._entrance is not None:
            self._handles.append(self._entrance.register_forward_pre_hook(self._begun))

    def detach(self) -> None:
        """Watch it no longer."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._x, self.batch, self.here, self.context = None, None, True, None

    def _called(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        replaced = "forward" in vars(module)  # the model's own makes one pass
        self.batch = args[0] if args else kwargs.get("x")
        self._x = self.batch if replaced and not self._always else None
        self.here, self._seen = True, 0
        self.context = args[2] if len(args) > 2 else kwargs.get("context")
        self.calls += 1

    def _begun(self, module: nn.Module, args: tuple) -> None:
        if self._x is not None:
            if _cut(args[0], self._x):
                raise TakenApart
            self.here = _same(args[0], self._x)
            self._seen += self.here

    def _done(self, module: nn.Module, args: tuple, output: Any) -> None:
        # Whoever changes the batch itself on its way in leaves nothing to know it by.
        self._always |= self._x is not None and not self._seen
        self._x, self.batch, self.here, self.context = None, None, True, None


def _cut(h: Tensor, x: Tensor) -> bool:
    """Whether ``h``, which enters the blocks, is a part of ``x``, and not a picture of its own."""
    apart = h.shape[-2:] != x.shape[-2:] and h.shape[1] == x.shape[1]
    return apart and any(box_of(h[0], picture.to(h)) is not None for picture in x)


def _same(h: Tensor, x: Tensor) -> bool:
    """Whether ``h``, which enters the blocks, is ``x`` or some of its rows (perhaps in another
    precision or size).
    """
    if h is x or h.shape[1:] != x.shape[1:]:
        return True
    whole = x.to(h)
    return torch.equal(h, whole) if len(h) == len(x) else all((row == whole).flatten(1).all(1).any() for row in h)
