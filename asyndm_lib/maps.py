"""Token maps: how strongly each pixel attends to each target, read in passing (METHOD, section 2)."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from . import unet as parts
from .attention_sum import AttentionSum
from .nearest import Resize
from .passes import Passes

Weights = Callable[[Hashable, int], Tensor]
"""``weights(row, context)``: ``[context, T]``, how much each token of a recorded row counts for each target."""


class TokenMaps:
    """Records the token maps of the conditional rows of a UNet's batch while :meth:`record` is active.

    Hooks on ``attn2.to_q`` and ``attn2.to_k`` see the projections that any attention back end uses,
    and leave them as they are. Only sums over heads and layers are kept, until :meth:`take`.
    A layer whose feature map has another size than the model gives it (an extension changes the
    resolution inside) is read at that size.
    """

    def __init__(self, unet: nn.Module, height: int, width: int):
        """``height``, ``width``: of the latent."""
        self._layers, self.size = parts.token_map_layers(unet, height, width)
        self._transformers = parts.transformers(unet, self._layers)
        self._passes = Passes(unet)
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._call: _Rows | None = None
        self._query: Tensor | None = None
        self._here = self.size
        self._records: list[_Rows] = []
        self._known: tuple[list, list[Tensor], Tensor] | None = None
        self._resize = Resize(*self.size)

    def attach(self) -> None:
        self._passes.attach()
        for transformer in self._transformers:
            self._handles.append(transformer.register_forward_pre_hook(self._before_transformer))
        for layer in self._layers:
            self._handles.append(layer.to_q.register_forward_hook(self._after_query))
            self._handles.append(layer.to_k.register_forward_hook(self._after_key(layer)))

    def detach(self) -> None:
        self._passes.detach()
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.clear()
        self._known = None

    def clear(self) -> None:
        """Forget everything recorded so far."""
        self._call = self._query = None
        self._records.clear()

    @contextmanager
    def record(self, rows: Sequence[Hashable | None], weights: Weights) -> Iterator[None]:
        """For one call of the UNet: ``rows[n]`` names the record that batch row ``n`` belongs to, None is not read."""
        kept = [(n, row) for n, row in enumerate(rows) if row is not None]
        if kept:
            self._call = _Rows([n for n, _ in kept], [row for _, row in kept], weights, len(self._layers))
            self._records.append(self._call)
        try:
            yield
        finally:
            self._call = self._query = None

    def take(self) -> tuple[list[Hashable], Tensor]:
        """The names of the recorded rows, and the mean of each over heads and layers, ``[rows, T, h, w]``.

        The record is empty afterwards.
        """
        seen = [record for record in self._records if record.sum.heads]
        rows = [row for record in seen for row in record.rows]
        means = [record.sum.mean().transpose(1, 2).unflatten(-1, self.size) for record in seen]
        self.clear()
        if not means:
            return [], torch.empty(0, 0, *self.size)
        return rows, means[0] if len(means) == 1 else torch.cat(means)

    def _before_transformer(self, module: nn.Module, args: tuple) -> None:
        self._here = tuple(args[0].shape[-2:])

    def _after_query(self, module: nn.Module, args: tuple, output: Tensor) -> None:
        if self._call is not None and self._passes.own:
            self._query = output

    def _after_key(self, layer: nn.Module) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple, output: Tensor) -> None:
            query, self._query = self._query, None
            call = self._call
            if call is None or query is None or query.shape[1] != self._here[0] * self._here[1]:
                return
            resize = None if self._here == self.size else partial(self._at_usual_size, self._here)
            weights = call.stacked.get(output.shape[1])
            if weights is None:
                weights = call.stacked[output.shape[1]] = self._weights_of(call, output.shape[1], output.device)
            call.sum.add(query[call.at], output[call.at], layer.heads, parts.scale(layer), weights, resize)

        return hook

    def _at_usual_size(self, here: tuple[int, int], maps: Tensor) -> Tensor:
        """``maps [rows, pixels, T]`` of a layer of size ``here``."""
        return self._resize(maps.transpose(1, 2).unflatten(-1, here)).flatten(2).transpose(1, 2)

    def _weights_of(self, call: _Rows, context: int, device: torch.device) -> Tensor:
        """``[rows, context, T]``; they seldom change from step to step."""
        weights = [call.weights(row, context) for row in call.rows]
        key = [*map(id, weights), device]
        if self._known is None or key != self._known[0]:
            self._known = key, weights, torch.stack(weights).to(device)
        return self._known[2]


class _Rows:
    """The recorded rows of one call of the UNet, and what was seen of them so far."""

    def __init__(self, at: list[int], rows: list[Hashable], weights: Weights, layers: int):
        # A run of rows is taken as a view; the hosts put the conditional ones together.
        self.at = slice(at[0], at[-1] + 1) if at[-1] - at[0] == len(at) - 1 else at
        self.rows, self.weights = rows, weights
        self.sum = AttentionSum(layers)
        self.stacked: dict[int, Tensor] = {}
