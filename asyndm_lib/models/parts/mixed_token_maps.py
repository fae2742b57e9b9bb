"""Token maps of cross-attentions that another extension works out in its own way.

Such an extension gives an attention a ``forward`` of its own. It may ask for several keys, each of
a part of the prompt or of the batch, and put their outputs together: region by region, or with
weights. A pixel's attention to a token is then its attention within the keys that hold the token,
times these keys' shares in the pixel's output.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..family import Recorded, Row, Size, Weights
from .attention_sum import no_autocast, summed
from .context import Passage, is_of, passage, rows_of, unmarked
from .patching import followed
from .resampling import Resize
from .token_maps import MapLayers, scale

LEAST = 0.02
"""A smaller share is a rounding error, and so is what of an output the shares leave unexplained."""


@dataclass
class _Key:
    """One key of a call of an attention.

    ``x`` ``[n, pixels, C]`` and ``context`` are what query and key were projected from.
    """

    x: Tensor
    query: Tensor
    context: Tensor
    key: Tensor


class _Sum(NamedTuple):
    """The sum over ``heads`` of a row's maps, and the sum over layers of the shares of the keys
    that hold each target, both ``[T, h, w]``.
    """

    maps: Tensor
    shown: Tensor
    heads: int


class MixedTokenMaps:
    """The :class:`family.TokenMaps` of a UNet in which attentions have a ``forward`` of their own.

    A row is read in the layers where its keys and their shares can be told.
    """

    def __init__(self, layers: MapLayers):
        self._layers, self.size, self._attached = layers, layers.size, ExitStack()
        self._resize = Resize(*self.size)
        self._here: Size = layers.size
        self._rows: list[tuple[int, Row]] = []  # of the present call: place in the batch, name
        self._weights: Weights | None = None
        self._query: tuple[Tensor, Tensor] | None = None
        self._keys: list[_Key] = []
        self._outputs: list[Tensor] = []  # of ``to_out``
        self._sums: list[dict[Row, _Sum]] = []

    def attach(self) -> None:
        """Put the hooks on the UNet."""
        layers, attached = self._layers, self._attached
        layers.attach(attached, self._before_transformer)
        for attention in layers.attentions:
            after = partial(self._after_attention, attention, has_own_forward(attention))
            attached.enter_context(followed(attention, after))
            attached.enter_context(followed(attention.to_q, self._after_query))
            attached.enter_context(followed(attention.to_k, self._after_key))
            attached.enter_context(followed(attention.to_out, self._after_out))

    def detach(self) -> None:
        """Take the hooks off the UNet, and forget what was recorded."""
        self._attached.close()
        self._sums.clear()
        self._forget()

    @contextmanager
    def record(self, rows: Sequence[Row | None], weights: Weights) -> Iterator[None]:
        """Read the rows that ``rows`` names in one call of the UNet."""
        self._rows = [(n, row) for n, row in enumerate(rows) if row is not None]
        if self._rows:
            self._weights = weights
            self._sums.append({})
        try:
            yield
        finally:
            self._forget()

    def take(self) -> Recorded:
        """Everything recorded since the last time: means over heads and layers."""
        read = [(row, sum) for sums in self._sums for row, sum in sums.items()]
        self._sums = []
        if not read:
            return Recorded([], torch.empty(0, 0, *self.size))
        maps = torch.stack([sum.maps / sum.heads for _, sum in read])
        shown = torch.stack([sum.shown for _, sum in read]) > 0
        return Recorded([row for row, _ in read], maps, shown.float().mean(dim=(-2, -1)))

    def _forget(self) -> None:
        self._weights = self._query = None
        self._keys, self._outputs = [], []

    def _before_transformer(self, module: nn.Module, args: tuple) -> None:
        self._here = (args[0].shape[-2], args[0].shape[-1])

    def _after_query(self, x: Tensor, query: Tensor) -> None:
        if self._weights is not None and self._layers.own_pass.here:
            self._query = x, query.clone()  # an attention may scale it in place

    def _after_key(self, context: Tensor, key: Tensor) -> None:
        query, self._query = self._query, None
        if query is not None:
            self._keys.append(_Key(*query, context, key.clone()))

    def _after_out(self, input: Tensor, output: Tensor) -> None:
        if self._keys:
            self._outputs.append(output.clone())

    @torch.no_grad()
    def _after_attention(self, attention: Any, own_forward: bool, x: Tensor, output: Tensor) -> None:
        keys, outputs, self._keys, self._outputs = self._keys, self._outputs, [], []
        prompts = self._layers.own_pass.context
        # Without keys it is another extension's pass of the UNet, of as many rows as it likes.
        if not keys or self._weights is None or prompts is None or x.shape[1] != self._here[0] * self._here[1]:
            return
        prompts = unmarked(prompts)
        passages: list[Passage] = []
        for key in keys:
            rows = rows_of(key.x, x)
            if not rows or len(key.context) != len(key.x):
                return
            if own_forward:
                passages.append(passage(key.context, prompts, rows, passages))
            elif is_of(key.context, prompts):
                passages.append(Passage(0, 0, prompts.shape[1]))
            else:
                return
        # Unless each key has one output, in their order, nothing tells what became of them.
        told = [len(made) for made in outputs] == [len(key.x) for key in keys]
        of_keys: Sequence[Tensor | None] = outputs if told else [None] * len(keys)
        with no_autocast(x.device):
            for n, row in self._rows:
                weights = self._weights(row, prompts.shape[1])
                own = [
                    (key, held, None if made is None else made[n - held.row])
                    for key, held, made in zip(keys, passages, of_keys, strict=True)
                    if held.row <= n < held.row + len(key.x)
                ]
                self._read(attention, n, row, own, output[n], weights)

    def _read(
        self,
        attention: Any,
        n: int,
        row: Row,
        keys: list[tuple[_Key, Passage, Tensor | None]],
        output: Tensor,
        weights: Tensor,
    ) -> None:
        """Add what row ``n`` of the batch attends to in ``keys``, each with what was made of it.

        The row's ``output`` ``[pixels, C]`` was made of these. ``weights`` ``[L, T]`` are those of
        the prompt's tokens.
        """
        shares = shares_of([made for _, _, made in keys], output)
        if shares is None:
            return
        maps = shown = shares.new_zeros(len(output), weights.shape[1])
        for share, (key, held, _) in zip(shares, keys, strict=True):
            own = shares.new_zeros(key.key.shape[1], weights.shape[1])
            own[: held.length] = weights[held.first : held.first + held.length]
            q, k = (
                projected[n - held.row].float().unflatten(-1, (attention.heads, -1)).transpose(0, 1)[None]
                for projected in (key.query, key.key)
            )
            maps = maps + share[:, None] * summed(q, k, own[None], scale(attention))[0]
            shown = shown + share[:, None] * own.any(dim=0)
        maps, shown = (self._resize(pixels.t().unflatten(-1, self._here)) for pixels in (maps, shown))
        sums = self._sums[-1]
        if row in sums:
            maps, shown = maps + sums[row].maps, shown + sums[row].shown
        heads = attention.heads + (sums[row].heads if row in sums else 0)
        sums[row] = _Sum(maps, shown, heads)


def has_own_forward(attention: nn.Module) -> bool:
    """Whether somebody gave this ``attention`` another ``forward`` than its class has."""
    return "forward" in vars(attention)


def shares_of(outputs: Sequence[Tensor | None], whole: Tensor) -> Tensor | None:
    """The share of each of ``m`` keys in every pixel's output ``whole [pixels, C]``.

    ``outputs`` are those of the single keys, each like ``whole``. The result ``[m, pixels]`` solves
    ``whole = sum(share * output)``. It is None if they cannot be told.
    """
    if len(outputs) == 1:
        return whole.new_ones(1, len(whole), dtype=torch.float32)
    known = [output for output in outputs if output is not None and output.shape == whole.shape]
    if not outputs or len(known) < len(outputs):
        return None
    # Double precision, which is the CPU's on devices that lack it: outputs may be much alike.
    home = whole.device if whole.device.type in ("cpu", "cuda") else torch.device("cpu")
    parts, whole = (t.to(home, torch.float64) for t in (torch.stack(known, dim=1), whole))  # [pixels, m, C]
    same = (parts == whole[:, None]).all(dim=2)
    shares = same / same.sum(dim=1, keepdim=True).clamp(min=1)
    if not same.any(dim=1).all():
        gram = parts @ parts.transpose(1, 2)
        # Keys with one output have equal shares then, and none has no solution.
        gram = gram + (1e-12 * gram.amax(dim=(1, 2)).clamp(min=1e-12)).unsqueeze(1).expand(-1, len(known)).diag_embed()
        solved = torch.linalg.solve(gram, parts @ whole[:, :, None])[:, :, 0]
        shares = torch.where(same.any(dim=1, keepdim=True), shares, solved)
        left = (whole - (shares[:, None] @ parts)[:, 0]).norm(dim=1)
        if not (left <= LEAST * whole.norm(dim=1)).all():
            return None
    return torch.where(shares < LEAST, 0, shares).t().to(known[0].device, torch.float32)
