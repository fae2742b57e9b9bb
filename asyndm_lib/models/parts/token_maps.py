"""Token maps of a cross-attention, in their plain form (docs/METHOD.md, section 2).

A token map is ``softmax(q·kᵀ·scale)`` over all tokens of the prompt, the mean over heads and
layers, then over the tokens of a target. :class:`batched_token_maps.BatchedTokenMaps` reads the
same with fewer calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..family import Recorded, Row, Size, Weights
from .attention_sum import no_autocast
from .context import own_rows
from .own_pass import OwnPass
from .patching import followed, watched
from .resampling import Resize


@dataclass(frozen=True)
class MapLayers:
    """The places of a UNet where token maps are read.

    ``attentions`` are the cross-attentions, each with ``to_q``, ``to_k`` and ``heads``.
    ``transformers`` are the modules around them, whose input is the feature map that they read as a
    row of pixels. ``size`` is the maps' own.
    """

    attentions: list[Any]
    transformers: list[nn.Module]
    size: Size
    own_pass: OwnPass

    def attach(self, attached: ExitStack, before_transformer: Callable[[nn.Module, tuple], None]) -> None:
        """Until ``attached`` closes, watch whose pass it is and what the transformers are given."""
        attached.callback(self.own_pass.detach)
        self.own_pass.attach()
        for transformer in self.transformers:
            attached.callback(transformer.register_forward_pre_hook(before_transformer).remove)


def scale(attention: Any) -> float:
    """The factor of an attention's scores. Forge's has only the size of a head, which gives the
    usual one.
    """
    if hasattr(attention, "scale"):
        return float(attention.scale)
    return float(attention.dim_head) ** -0.5


class TokenMaps:
    """The plain :class:`family.TokenMaps` of a UNet.

    It sees the outputs of ``to_q`` and ``to_k``, which every attention back end uses. A layer whose
    feature map has another size than usual (an extension changes the resolution inside) is read at
    that size.
    """

    def __init__(self, layers: MapLayers):
        self._layers, self.size, self._attached = layers, layers.size, ExitStack()
        self._rows: list[tuple[int, Row]] = []  # of the present call: place in the batch, name
        self._weights: Weights | None = None
        self._query: Tensor | None = None
        self._here: Size = layers.size
        self._recorded: list[tuple[list[Row], list[Tensor], list[int]]] = []

    def attach(self) -> None:
        """Put the hooks on the UNet."""
        layers, attached = self._layers, self._attached
        layers.attach(attached, self._before_transformer)
        for attention in layers.attentions:
            attached.enter_context(watched(attention.to_q, self._after_query))
            attached.enter_context(followed(attention.to_k, partial(self._after_key, attention)))

    def detach(self) -> None:
        """Take the hooks off the UNet, and forget what was recorded."""
        self._attached.close()
        self._recorded.clear()
        self._weights = self._query = None

    @contextmanager
    def record(self, rows: Sequence[Row | None], weights: Weights) -> Iterator[None]:
        """Read the rows that ``rows`` names in one call of the UNet."""
        self._rows = [(n, row) for n, row in enumerate(rows) if row is not None]
        if self._rows:
            self._weights = weights
            self._recorded.append(([row for _, row in self._rows], [], []))
        try:
            yield
        finally:
            self._weights = self._query = None

    def take(self) -> Recorded:
        """Everything recorded since the last time: means over heads and layers."""
        seen = [(rows, maps, heads) for rows, maps, heads in self._recorded if maps]
        self._recorded = []
        if not seen:
            return Recorded([], torch.empty(0, 0, *self.size))
        means = [torch.stack(maps).sum(dim=0) / sum(heads) for _, maps, heads in seen]
        return Recorded([row for rows, _, _ in seen for row in rows], torch.cat(means))

    def _before_transformer(self, module: nn.Module, args: tuple) -> None:
        self._here = (args[0].shape[-2], args[0].shape[-1])

    def _after_query(self, query: Tensor) -> None:
        if self._weights is not None and self._layers.own_pass.here:
            self._query = query.clone()  # an attention back end may scale it in place

    @torch.no_grad()
    def _after_key(self, attention: Any, context: Tensor, key: Tensor) -> None:
        query, self._query = self._query, None
        height, width = self._here
        if self._weights is None or query is None or query.shape[1] != height * width:
            return
        at = own_rows(context, self._layers.own_pass.context, [n for n, _ in self._rows])
        if at is None:
            return
        dtype = torch.promote_types(query.dtype, torch.float32)  # q·kᵀ of SD 2.x leaves half's range
        maps = []
        with no_autocast(key.device):
            for place, (_, row) in zip(at, self._rows, strict=True):
                q, k = (x[place].to(dtype).unflatten(-1, (attention.heads, -1)).transpose(0, 1) for x in (query, key))
                probabilities = (q @ k.transpose(1, 2) * scale(attention)).softmax(dim=-1)
                weights = self._weights(row, key.shape[1]).to(probabilities)
                maps.append((probabilities.sum(dim=0) @ weights).t().unflatten(-1, self._here))
        _, found, heads = self._recorded[-1]
        found.append(Resize(*self.size)(torch.stack(maps)))
        heads.append(attention.heads)
