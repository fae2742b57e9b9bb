"""What the cross-attentions of a model call look at, summed over heads and layers (METHOD, section 2)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

LAYERS, MEMORY = 8, 32 * 2**20
"""So many layers, and bytes of their probabilities, are worked out at once.

A call costs as much for a few small layers as for one; with large ones there is nothing to gain, only memory to lose.
"""


class AttentionSum:
    """The sum of ``softmax(q·kᵀ·scale) @ weights`` over the heads of all layers that were added.

    ``heads``: how many there were.
    """

    def __init__(self, layers: int):
        """``layers``: how many there are going to be."""
        self.heads = 0
        self._layers = layers
        self._sum: Tensor | None = None
        self._waiting: _Layers | None = None

    def add(
        self,
        query: Tensor,
        key: Tensor,
        heads: int,
        scale: float,
        weights: Tensor,
        resize: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        """One layer. The tensors given are read now, whatever becomes of them later.

        ``query``: ``[rows, pixels, heads·d]``. ``key``: ``[rows, context, heads·d]``. ``weights``: ``[rows, context,
        T]``. ``resize``: for a layer of an unusual size, its sum ``[rows, pixels, T]`` at the usual one.
        """
        self.heads += heads
        kind = (query.shape, key.shape, heads, scale, id(weights), resize is None)
        if self._waiting is None or self._waiting.kind != kind:
            self._work_out()
            self._waiting = _Layers(self._layers, kind, query, key, heads, scale, weights, resize)
        self._waiting.put(query, key)
        if self._waiting.full:
            self._work_out()

    def mean(self) -> Tensor:
        """Over all heads, ``[rows, pixels, T]``."""
        self._work_out()
        return self._sum / self.heads

    def _work_out(self) -> None:
        if self._waiting is not None:
            maps, self._waiting = self._waiting.sum(), None
            self._sum = maps if self._sum is None else self._sum + maps


class _Layers:
    """Some layers of one shape, in full precision: q·kᵀ of SD 2.x overflows in half."""

    def __init__(
        self,
        most: int,
        kind: object,
        query: Tensor,
        key: Tensor,
        heads: int,
        scale: float,
        weights: Tensor,
        resize: Callable[[Tensor], Tensor] | None,
    ):
        self.kind = kind
        self._scale, self._weights, self._resize = scale, weights, resize
        (rows, pixels, width), context = query.shape, key.shape[1]
        precision = torch.promote_types(query.dtype, torch.float32)
        one = rows * heads * pixels * context * 4
        count = max(1, min(LAYERS, most, MEMORY // one))
        shape = count, rows, heads
        self._q = query.new_empty((*shape, pixels, width // heads), dtype=precision)
        self._k = query.new_empty((*shape, context, width // heads), dtype=precision)
        self._count = 0

    @property
    def full(self) -> bool:
        return self._count == len(self._q)

    def put(self, query: Tensor, key: Tensor) -> None:
        heads = self._q.shape[2]
        for kept, given in ((self._q, query), (self._k, key)):
            kept[self._count].copy_(given.unflatten(-1, (heads, -1)).transpose(1, 2))
        self._count += 1

    def sum(self) -> Tensor:
        """``[rows, pixels, T]``."""
        q, k = self._q[: self._count], self._k[: self._count]
        with _no_autocast(q.device):
            scores = torch.baddbmm(
                q.new_empty(1, 1, 1), q.flatten(0, 2), k.flatten(0, 2).transpose(1, 2), beta=0, alpha=self._scale
            )
            attention = scores.softmax(dim=-1).unflatten(0, q.shape[:3]).sum(dim=(0, 2))
            maps = attention @ self._weights.to(attention.dtype)
        return maps if self._resize is None else self._resize(maps)


def _no_autocast(device: torch.device) -> AbstractContextManager:
    """Devices that have no autocast need nothing."""
    if device.type in ("cuda", "cpu", "xpu"):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()
