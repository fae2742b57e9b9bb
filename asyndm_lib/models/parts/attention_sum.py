"""What the cross-attentions of a model call look at, summed over heads and layers.

The sum is of docs/METHOD.md, section 2.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

LAYERS, MEMORY = 12, 80 * 2**20
"""How many layers, and bytes of their probabilities (where a kernel writes them), are worked out at
once.

A call costs as much for a few small layers as for one; with large ones there is nothing to gain,
only memory to lose.
"""


WeightsFor = Callable[[int, torch.device, torch.dtype], Tensor]
"""``weights(context, device, dtype)``: the weights of the rows that are read, ``[rows, context,
T]``; see :func:`columns`.
"""


@dataclass(frozen=True)
class Layer:
    """How a cross-attention is to be read.

    ``resize`` brings the sum ``[rows, pixels, T]`` of a layer of an unusual size to the usual one.
    """

    heads: int
    scale: float
    resize: Callable[[Tensor], Tensor] | None = None


class AttentionSum:
    """The sum of ``softmax(q·kᵀ·scale) @ weights`` over the heads of all layers that were added.

    ``heads`` is how many heads there were.
    """

    def __init__(self, rows: slice | list[int], weights: WeightsFor):
        """``rows`` are those that are read of a call's ``N``."""
        self.heads = 0
        self._rows, self._weights = rows, weights
        self._sum: Tensor | None = None
        self._layer: Layer | None = None
        self._shapes: tuple | None = None
        self._most = 0
        self._queries: list[Tensor] = []
        self._keys: list[Tensor] = []

    def add(self, query: Tensor, key: Tensor, layer: Layer) -> None:
        """Add one layer, whose tensors must stay as they are until they are worked out.

        ``query`` is ``[N, pixels, heads·d]``, ``key`` is ``[N, context, heads·d]``.
        """
        shapes = query.shape, key.shape
        if layer != self._layer or shapes != self._shapes:
            self.work_out()
            self._layer, self._shapes = layer, shapes
            probabilities = layer.heads * query.shape[0] * query.shape[1] * key.shape[1]
            self._most = min(LAYERS, max(1, MEMORY // (probabilities * query.element_size())))
        self.heads += layer.heads
        self._queries.append(query)
        self._keys.append(key)
        if len(self._queries) == self._most:
            self.work_out()

    def mean(self) -> Tensor:
        """The mean over all heads, ``[rows, pixels, T]``, with as many columns as ``weights`` has.
        """
        self.work_out()
        assert self._sum is not None
        return self._sum / self.heads

    def work_out(self) -> None:
        """Add up the layers that wait, and let go of their tensors."""
        if self._queries and self._layer is not None:
            maps = self._of_waiting(self._layer)
            self._sum = maps if self._sum is None else self._sum + maps
            self._queries.clear()
            self._keys.clear()

    @torch.no_grad()
    def _of_waiting(self, layer: Layer) -> Tensor:
        """The sum ``[rows, pixels, T]`` of the layers that wait, which have one shape."""
        with no_autocast(self._keys[0].device):
            q, k = self._heads(self._queries, layer), self._heads(self._keys, layer)
            weights = self._weights(k.shape[2], k.device, q.dtype)
            maps = (summed_fused if q.is_cuda else summed)(q, k, weights, layer.scale)
        return maps if layer.resize is None else layer.resize(maps)

    def _heads(self, projected: list[Tensor], layer: Layer) -> Tensor:
        """Each ``[N, n, heads·d]`` → ``[rows, layers·heads, n, d]``."""
        every = torch.cat(projected, dim=-1) if len(projected) > 1 else projected[0]
        read = every[self._rows]
        split = read.view(*read.shape[:2], len(projected) * layer.heads, -1).transpose(1, 2)
        return split.to(_precision(split))


def summed(q: Tensor, k: Tensor, weights: Tensor, scale: float) -> Tensor:
    """``softmax(q·kᵀ·scale) @ weights``, summed over heads: ``[rows, pixels, T]``.

    ``q [rows, heads, pixels, d]``, ``k [rows, heads, context, d]``, ``weights [rows, context, T]``.
    """
    rows, heads = q.shape[:2]
    q, k = q.flatten(0, 1), k.flatten(0, 1)
    # [context, pixels]: the other way round a row would be 77 long, for which a product is slow.
    scores = torch.baddbmm(q.new_empty(1, 1, 1), k, q.transpose(1, 2), beta=0, alpha=scale)
    attention = scores.softmax(dim=1).view(rows, heads, *scores.shape[1:])
    return attention.sum(dim=1).transpose(1, 2) @ weights


def summed_fused(q: Tensor, k: Tensor, weights: Tensor, scale: float) -> Tensor:
    """The same as :func:`summed`, by the kernel that writes no scores, with the weights as its
    values.

    Half precision is enough: the scores keep what they are computed in, single precision.
    """
    values = weights[:, None].expand(-1, q.shape[1], -1, -1)
    maps = scaled_dot_product_attention(q, k, values, scale=scale)
    return maps.sum(dim=1, dtype=torch.promote_types(maps.dtype, torch.float32))


FUSED = 8
"""The fused kernels take values whose number of columns is a multiple of this."""


def columns(weights: Tensor, dtype: torch.dtype) -> Tensor:
    """``weights [rows, context, T]`` in ``dtype``, with zeros in the columns behind ``T``."""
    return pad(weights, (0, -weights.shape[-1] % FUSED)).to(dtype)


def _precision(x: Tensor) -> torch.dtype:
    """The precision to work in: half on CUDA only, where scores are not rounded to it.

    q·kᵀ of SD 2.x leaves half's range. bfloat16 is too coarse for a threshold.
    """
    return x.dtype if x.is_cuda and x.dtype == torch.float16 else torch.promote_types(x.dtype, torch.float32)


def no_autocast(device: torch.device) -> AbstractContextManager:
    """Devices that have no autocast need nothing."""
    if device.type in ("cuda", "cpu", "xpu"):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()
