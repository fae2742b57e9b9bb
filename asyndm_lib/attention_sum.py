"""What the cross-attentions of a model call look at, summed over heads and layers (METHOD, section 2)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

LAYERS, MEMORY = 8, 32 * 2**20
"""So many layers, and bytes of their probabilities, are worked out at once.

A call costs as much for a few small layers as for one; with large ones there is nothing to gain, only memory to lose.
"""


@dataclass(frozen=True)
class Layer:
    """How a cross-attention is to be read.

    ``resize``: for a layer of an unusual size, its sum ``[rows, pixels, T]`` at the usual one.
    """

    heads: int
    scale: float
    resize: Callable[[Tensor], Tensor] | None = None


class AttentionSum:
    """The sum of ``softmax(q·kᵀ·scale) @ weights`` over the heads of all layers that were added.

    ``heads``: how many there were.
    """

    def __init__(self) -> None:
        self.heads = 0
        self._sum: Tensor | None = None
        self._kind: tuple | None = None
        self._waiting: list[tuple[Tensor, Tensor]] = []

    def add(self, query: Tensor, key: Tensor, layer: Layer, weights: Tensor) -> None:
        """One layer, whose tensors must stay as they are.

        ``query``: ``[rows, pixels, heads·d]``. ``key``: ``[rows, context, heads·d]``. ``weights``: ``[rows, context,
        T]``.
        """
        self.heads += layer.heads
        kind = layer, weights, query.shape, key.shape
        if self._kind is None or not _alike(kind, self._kind):
            self._work_out()
            self._kind = kind
        self._waiting.append((query, key))
        rows, pixels, _ = query.shape
        count = len(self._waiting)
        if count == LAYERS or (count + 1) * rows * layer.heads * pixels * key.shape[1] * query.element_size() > MEMORY:
            self._work_out()

    def mean(self) -> Tensor:
        """Over all heads, ``[rows, pixels, T]``."""
        self._work_out()
        return self._sum / self.heads

    def _work_out(self) -> None:
        if self._waiting:
            layer, weights, *_ = self._kind
            maps = _summed([q for q, _ in self._waiting], [k for _, k in self._waiting], layer, weights)
            self._waiting.clear()
            maps = maps if layer.resize is None else layer.resize(maps)
            self._sum = maps if self._sum is None else self._sum + maps


def _alike(a: tuple, b: tuple) -> bool:
    return a[1] is b[1] and a[0] == b[0] and a[2:] == b[2:]


@torch.no_grad()
def _summed(queries: list[Tensor], keys: list[Tensor], layer: Layer, weights: Tensor) -> Tensor:
    """``[rows, pixels, T]`` of layers of one shape."""
    rows = len(weights)
    with _no_autocast(weights.device):
        q, k = (_heads(projected, layer.heads) for projected in (queries, keys))
        scores = torch.baddbmm(q.new_empty(1, 1, 1), q, k.transpose(1, 2), beta=0, alpha=layer.scale)
        attention = scores.softmax(dim=-1).unflatten(0, (len(queries), rows, layer.heads))
        full = torch.promote_types(q.dtype, torch.float32)
        return attention.sum(dim=(0, 2), dtype=full) @ weights.to(full)


def _heads(projected: list[Tensor], heads: int) -> Tensor:
    """Each ``[rows, n, heads·d]`` → ``[layers·rows·heads, n, d]``."""
    split = torch.cat([one.unflatten(-1, (heads, -1)).transpose(1, 2) for one in projected])
    return split.to(_precision(split)).flatten(0, 1)


def _precision(x: Tensor) -> torch.dtype:
    """Half where products are scaled before they are rounded, as CUDA's are: q·kᵀ of SD 2.x leaves its range before.

    bfloat16 is too coarse for a threshold.
    """
    return x.dtype if x.is_cuda and x.dtype == torch.float16 else torch.promote_types(x.dtype, torch.float32)


def _no_autocast(device: torch.device) -> AbstractContextManager:
    """Devices that have no autocast need nothing."""
    if device.type in ("cuda", "cpu", "xpu"):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()
