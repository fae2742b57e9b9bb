"""A timestep for every token of a transformer's picture, with little traffic: the accelerator of
:mod:`token_modulation`.

What costs time here is memory: a shift, scale or gate of all tokens is as large as the tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .token_modulation import ModulationSites, TokenModulation, _Call


class TabledModulation(TokenModulation):
    """The fast :class:`family.CellTimesteps` of a transformer.

    Every modulation's layers run once, on all levels and rows. Its vectors are spread over the
    tokens one at a time, where a token needs them.
    """

    def __init__(self, sites: ModulationSites):
        super().__init__(sites)
        self._made: tuple[Tensor, _Call, Tensor, Tensor] | None = None

    def _lagging(self, embed: Callable[[Tensor], Tensor], timesteps: Tensor, own: Tensor) -> Tensor:
        return embed(timesteps)[:, None].expand(-1, len(own), -1)

    def _of_tokens(self, call: _Call, forward: Callable[[Tensor], Tensor], emb: Tensor) -> Any:
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
        return _Vectors(table, places, n, call.alike)

    def detach(self) -> None:
        """Take the hooks off the model."""
        super().detach()
        self._made = None


class _Lazy:
    """What becomes a tensor ``[n, tokens, D]`` where PyTorch needs one."""

    def tensor(self) -> Tensor:
        raise NotImplementedError

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if not kwargs and len(args) == 2:
            name = getattr(func, "__name__", "")
            for own, other in (args, args[::-1]):
                if isinstance(own, _Lazy) and isinstance(other, Tensor):
                    if name in ("mul", "__mul__", "__rmul__"):
                        return own * other
                    if name in ("add", "__add__", "__radd__"):
                        return own + other
        plain = [arg.tensor() if isinstance(arg, _Lazy) else arg for arg in args]
        return func(*plain, **(kwargs or {}))


class _Vectors(_Lazy):
    """Stands for a modulation ``[n, k·D]``, and for a chunk of it with a dimension for the tokens.

    Numbers are added to the table. Products wait for what is added to them.
    """

    def __init__(self, table: Tensor, places: Tensor, n: int, exact: bool):
        """``table`` ``[R, k·D]``. ``places`` ``[n·tokens]`` are the tokens' rows of it. ``exact``:
        whether what follows rounds as the model itself does.
        """
        self.table, self.places, self.n, self.exact = table, places, n, exact

    def chunk(self, chunks: int, dim: int = -1) -> list[_Vectors]:
        """Parts of the vectors."""
        return [self._like(part) for part in self.table.chunk(chunks, dim=-1)]

    def unsqueeze(self, dim: int) -> _Vectors:
        """The same, which a tensor of tokens may now meet."""
        return self

    def tensor(self) -> Tensor:
        """The vector of every token."""
        return self.table.index_select(0, self.places).unflatten(0, (self.n, -1))

    def __add__(self, other: Any) -> Any:
        if isinstance(other, (int, float)):
            return self._like(self.table + other)
        return self.tensor() + other

    __radd__ = __add__

    def __mul__(self, other: Any) -> Any:
        return _Product(self, other) if isinstance(other, Tensor) and other.dim() == 3 else self.tensor() * other

    __rmul__ = __mul__

    def _like(self, table: Tensor) -> _Vectors:
        return _Vectors(table, self.places, self.n, self.exact)


class _Product(_Lazy):
    """Tokens ``[n, tokens, D]`` times their vectors, to be added to something."""

    def __init__(self, vectors: _Vectors, tokens: Tensor):
        self._vectors, self._tokens = vectors, tokens

    def tensor(self) -> Tensor:
        """The product."""
        return self._tokens * self._vectors.tensor()

    def __add__(self, other: Any) -> Tensor:
        other = other.tensor() if isinstance(other, _Lazy) else other
        if self._vectors.exact:
            return self.tensor() + other
        return torch.addcmul(other, self._tokens, self._vectors.tensor())

    __radd__ = __add__
