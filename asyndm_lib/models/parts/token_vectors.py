"""What stands for the modulations of a transformer whose tokens are at several levels."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

Places = Callable[[int], Tensor]
"""``places(tokens)``: the row of a table that each of a batch's tokens takes, int64
``[n·tokens]``."""


class TokenVectors:
    """Stands for a modulation ``[n, …, D]`` of ``n`` rows, as the model takes it to pieces.

    Numbers, parameters and changes of shape act on a table of all levels. It becomes a tensor with
    a vector for each token only where it meets the tokens, for that one operation, which is the
    model's own and so rounds as it does.
    """

    def __init__(self, table: Tensor, n: int, cells: int, places: Places):
        """``table`` ``[R, …, D]``. ``cells`` is how many tokens the picture has."""
        self._table, self._n, self._cells, self._places = table, n, cells, places

    @property
    def shape(self) -> torch.Size:
        """That of the modulation."""
        return torch.Size((self._n, *self._table.shape[1:]))

    def __getattr__(self, name: str) -> Any:
        """What a tensor has under this name."""
        own = getattr(self._table, name)
        return partial(self._do, getattr(Tensor, name), self) if callable(own) else own

    def __getitem__(self, key: Any) -> Any:
        return self._do(Tensor.__getitem__, self, key)

    def __add__(self, other: Any) -> Any:
        return self._do(torch.add, self, other)

    __radd__ = __add__

    def __mul__(self, other: Any) -> Any:
        return self._do(torch.mul, self, other)

    def __rmul__(self, other: Any) -> Any:
        return self._do(torch.mul, other, self)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        own = next(arg for arg in args if isinstance(arg, cls))
        return own._do(func, *args, **(kwargs or {}))

    def _do(self, func: Callable, *args: Any, **kwargs: Any) -> Any:
        tokens = next((arg for arg in args if self._are_tokens(arg)), None)
        if tokens is None:
            tables = (arg._table if isinstance(arg, TokenVectors) else arg for arg in args)
            return changed(func(*tables, **kwargs), self._like)
        shape = tokens.shape[:-1]
        return func(*(arg._of(shape) if isinstance(arg, TokenVectors) else arg for arg in args), **kwargs)

    def _are_tokens(self, other: Any) -> bool:
        """Whether ``other`` has a vector for each token of each row."""
        if not isinstance(other, Tensor) or other.dim() < 3 or len(other) != self._n:
            return False
        return other.shape[1:-1].numel() >= self._cells

    def _of(self, shape: torch.Size) -> Tensor:
        """The vector of every token of a batch ``[*shape, D]``."""
        places = self._places(shape[1:].numel())
        return self._table.flatten(1).index_select(0, places).view(*shape, -1)

    def _like(self, table: Tensor) -> TokenVectors:
        return TokenVectors(table, self._n, self._cells, self._places)


def changed(value: Any, change: Callable[[Tensor], Any]) -> Any:
    """``value`` with ``change`` done to every tensor in it; it is made of lists and dataclasses."""
    return _together([value], lambda tensors: change(tensors[0]))


def joined(values: Sequence[Any]) -> Any:
    """The rows of several ``values`` that are made alike, behind each other."""
    return _together(values, lambda tensors: torch.cat(list(tensors)))


def _together(values: Sequence[Any], make: Callable[[Sequence[Tensor]], Any]) -> Any:
    first = values[0]
    if isinstance(first, Tensor):
        return make(values)
    if isinstance(first, (list, tuple)):
        return type(first)(_each(zip(*values, strict=True), make))
    if dataclasses.is_dataclass(first):
        names = [field.name for field in dataclasses.fields(first)]
        own = _each(([getattr(value, name) for value in values] for name in names), make)
        return dataclasses.replace(first, **dict(zip(names, own, strict=True)))  # type: ignore[type-var]
    return first


def _each(parts: Iterable[Sequence[Any]], make: Callable[[Sequence[Tensor]], Any]) -> list:
    return [_together(list(part), make) for part in parts]
