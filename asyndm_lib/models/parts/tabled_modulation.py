"""A timestep for every token of a transformer's picture, with little traffic: the accelerator of
:mod:`token_modulation`.

What costs time here is memory: a shift, scale or gate of all tokens is as large as the tokens.
Products and sums stay apart, as the model has them: on a GPU they take no longer with a vector for
each token than with one for all, which PyTorch's kernels spread element by element.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .token_modulation import Call, ModulationSites, TokenModulation


class TabledModulation(TokenModulation):
    """The fast :class:`family.CellTimesteps` of a transformer.

    Every modulation's layers run once, on all levels and rows. Its vectors are spread over the
    tokens one at a time, where a token needs them.
    """

    def __init__(self, sites: ModulationSites):
        super().__init__(sites)
        self._made: tuple[Tensor, Call, Tensor, Tensor] | None = None

    def _lagging(self, embed: Callable[[Tensor], Tensor], timesteps: Tensor, own: Tensor) -> Tensor:
        return embed(timesteps)[:, None].expand(-1, len(own), -1)

    def _of_tokens(self, call: Call, forward: Callable[[Tensor], Tensor], emb: Tensor) -> Any:
        assert call.lagging is not None
        n = len(emb)
        if self._made is None or self._made[0] is not emb or self._made[1] is not call:
            rows = torch.arange(n, device=emb.device)[:, None]
            lagging = call.lagging.flatten(0, 1)
            embs = lagging if call.alike else torch.cat([emb, lagging])
            self._made = emb, call, embs, torch.add(rows, call.tokens, alpha=n).flatten()
        _, _, embs, places = self._made
        # A row that is at one level keeps the model's own bits.
        table = torch.cat([forward(emb), forward(embs)]) if call.alike else forward(embs)
        return _Vectors(table, places, n)

    def detach(self) -> None:
        """Take the hooks off the model."""
        super().detach()
        self._made = None


class _Vectors:
    """Stands for a modulation ``[n, k·D]``, and for a chunk of it with a dimension for the tokens.

    Numbers are added to the table. It becomes a tensor ``[n, tokens, D]`` only where it meets one,
    for that one operation, which is the model's own and so rounds as it does.
    """

    def __init__(self, table: Tensor, places: Tensor, n: int):
        """``table`` ``[R, k·D]``. ``places`` ``[n·tokens]`` are the tokens' rows of it."""
        self._table, self._places, self._n = table, places, n

    def chunk(self, chunks: int, dim: int = -1) -> list[_Vectors]:
        """Parts of the vectors."""
        return [self._like(part) for part in self._table.chunk(chunks, dim=-1)]

    def unsqueeze(self, dim: int) -> _Vectors:
        """The same, which a tensor of tokens may now meet."""
        return self

    def tensor(self) -> Tensor:
        """The vector of every token."""
        return self._table.index_select(0, self._places).unflatten(0, (self._n, -1))

    def __add__(self, other: Any) -> Any:
        return self._like(self._table + other) if isinstance(other, (int, float)) else self.tensor() + other

    __radd__ = __add__

    def __mul__(self, other: Any) -> Tensor:
        return self.tensor() * other

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        tensors = [arg.tensor() if isinstance(arg, _Vectors) else arg for arg in args]
        return func(*tensors, **(kwargs or {}))

    def _like(self, table: Tensor) -> _Vectors:
        return _Vectors(table, self._places, self._n)
