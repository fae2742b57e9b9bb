"""Token maps: how strongly each pixel attends to each target, read in passing (METHOD, section 2)."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn

from . import unet as parts
from .nearest import resize
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

    def clear(self) -> None:
        """Forget everything recorded so far."""
        self._call = self._query = None
        self._records.clear()

    @contextmanager
    def record(self, rows: Sequence[Hashable | None], weights: Weights) -> Iterator[None]:
        """For one call of the UNet: ``rows[n]`` names the record that batch row ``n`` belongs to, None is not read."""
        kept = [(n, row) for n, row in enumerate(rows) if row is not None]
        if kept:
            self._call = _Rows([n for n, _ in kept], [row for _, row in kept], weights)
            self._records.append(self._call)
        try:
            yield
        finally:
            self._call = self._query = None

    def take(self) -> dict[Hashable, Tensor]:
        """Mean over heads and layers of every recorded row, ``[T, h, w]`` each; the record is empty afterwards."""
        maps = {}
        for record in self._records:
            if record.sum is not None:
                mean = (record.sum / record.layers).transpose(1, 2).unflatten(-1, self.size)
                maps.update(zip(record.rows, mean, strict=True))
        self.clear()
        return maps

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
            weights = call.weights(output.shape[1], output.device)
            maps = token_maps(query[call.at], output[call.at], layer.heads, parts.scale(layer), weights)
            if self._here != self.size:
                maps = resize(maps.transpose(1, 2).unflatten(-1, self._here), *self.size).flatten(2).transpose(1, 2)
            call.sum = maps if call.sum is None else call.sum + maps
            call.layers += 1

        return hook


class _Rows:
    """The recorded rows of one call of the UNet, and what was seen of them so far."""

    def __init__(self, at: list[int], rows: list[Hashable], weights: Weights):
        # A run of rows is taken as a view; the hosts put the conditional ones together.
        self.at = slice(at[0], at[-1] + 1) if at[-1] - at[0] == len(at) - 1 else at
        self.rows = rows
        self.sum: Tensor | None = None
        self.layers = 0
        self._weights = weights
        self._stacked: Tensor | None = None

    def weights(self, context: int, device: torch.device) -> Tensor:
        """``[rows, context, T]``."""
        if self._stacked is None or self._stacked.shape[1] != context:
            self._stacked = torch.stack([self._weights(row, context) for row in self.rows]).to(device)
        return self._stacked


@torch.no_grad()
def token_maps(query: Tensor, key: Tensor, heads: int, scale: float, weights: Tensor) -> Tensor:
    """``softmax(q·kᵀ·scale)`` over all tokens, mean over heads, weighted sum over tokens: ``[rows, pixels, T]``.

    ``query``: ``[rows, pixels, heads·d]``. ``key``: ``[rows, context, heads·d]``. ``weights``: ``[rows, context, T]``.
    """
    with _full_precision(query.device):
        q, k = _heads(query, heads), _heads(key, heads)
        attention = torch.baddbmm(q.new_empty(1, 1, 1), q, k.transpose(1, 2), beta=0, alpha=scale).softmax(dim=-1)
        return attention.unflatten(0, (-1, heads)).mean(dim=1) @ weights.to(q.dtype)


def _heads(projected: Tensor, heads: int) -> Tensor:
    """``[rows, n, heads·d]`` → ``[rows·heads, n, d]`` in full precision, in one copy."""
    split = projected.unflatten(-1, (heads, -1)).transpose(1, 2)
    precision = torch.promote_types(projected.dtype, torch.float32)
    return split.to(precision, memory_format=torch.contiguous_format).flatten(0, 1)


def _full_precision(device: torch.device) -> AbstractContextManager:
    """No autocast inside; half precision overflows in q·kᵀ of SD 2.x. Devices that have no autocast need nothing."""
    if device.type in ("cuda", "cpu", "xpu"):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()
