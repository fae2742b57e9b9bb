"""Token maps of a cross-attention with few calls: the accelerator of :mod:`token_maps`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from ..family import Recorded, Row, Size, Weights
from .attention_sum import AttentionSum, Layer, WeightsFor, columns
from .context import own_rows
from .patching import followed, watched
from .resampling import Resize
from .token_maps import MapLayers, scale


class BatchedTokenMaps:
    """The fast :class:`family.TokenMaps` of a UNet.

    Layers that are alike wait for each other and are worked out together; only sums over heads and
    layers are kept, until :meth:`take`. A layer whose feature map has another size than usual (an
    extension changes the resolution inside) is read at that size.
    """

    def __init__(self, layers: MapLayers):
        self._layers, self.size = layers, layers.size
        self._attached = ExitStack()
        self._watches: list[followed] = []
        self._call: _Rows | None = None
        self._query: Tensor | None = None
        self._here = self.size
        self._records: list[_Rows] = []
        self._known: tuple[list, list[Tensor], Tensor] | None = None
        self._resize = Resize(*self.size)
        self._resizes: dict[Size, Callable[[Tensor], Tensor]] = {}
        self._untouched = _Untouched()

    def attach(self) -> None:
        """Put the hooks on the UNet."""
        layers, attached = self._layers, self._attached
        layers.attach(attached, self._before_transformer)
        kinds: dict[Layer, Layer] = {}  # one object for layers that are alike: every layer compares them
        for attention in layers.attentions:
            self._watches.append(attached.enter_context(watched(attention.to_q, self._after_query)))
            as_usual = Layer(attention.heads, scale(attention))
            as_usual = kinds.setdefault(as_usual, as_usual)
            last = attention is layers.attentions[-1]
            after = self._after_last_key if last else self._after_key
            self._watches.append(attached.enter_context(followed(attention.to_k, partial(after, as_usual))))

    def detach(self) -> None:
        """Take the hooks off the UNet, and forget what was recorded."""
        self._attached.close()
        self._watches.clear()
        self.clear()
        self._known = None
        self._resizes.clear()  # they know this object

    def clear(self) -> None:
        """Forget everything recorded so far."""
        self._call = self._query = None
        self._records.clear()

    @contextmanager
    def record(self, rows: Sequence[Row | None], weights: Weights) -> Iterator[None]:
        """Read the rows that ``rows`` names in one call of the UNet."""
        for watch in self._watches:
            watch.look()
        kept = [(n, row) for n, row in enumerate(rows) if row is not None]
        if kept:
            named = [row for _, row in kept]
            of = partial(self._weights_of, named, weights)
            self._call = _Rows([n for n, _ in kept], named, of, len(rows))
            self._records.append(self._call)
        try:
            yield
        finally:
            self._call = self._query = None
            self._untouched.end()

    def take(self) -> Recorded:
        """Everything recorded since the last time, which is then forgotten."""
        seen = [record for record in self._records if record.sum.heads]
        rows = [row for record in seen for row in record.rows]
        means = [record.sum.mean() for record in seen]
        self.clear()
        if not means or self._known is None:
            return Recorded([], torch.empty(0, 0, *self.size))
        targets = self._known[1][0].shape[1]
        mean = means[0] if len(means) == 1 else torch.cat(means)
        return Recorded(rows, mean[..., :targets].transpose(1, 2).unflatten(-1, self.size))

    def _before_transformer(self, module: nn.Module, args: tuple) -> None:
        self._here = tuple(args[0].shape[-2:])

    def _after_query(self, query: Tensor) -> None:
        call, own_pass = self._call, self._layers.own_pass
        if call is not None and own_pass.here and (own_pass.batch is None or len(own_pass.batch) == call.count):
            if call.number is None:
                call.number = own_pass.calls
            if call.number == own_pass.calls:  # what somebody evaluates again within it is not read
                self._query = query

    def _after_key(self, as_usual: Layer, context: Tensor, key: Tensor) -> None:
        query, self._query = self._query, None
        call = self._call
        if call is None or query is None or query.shape[1] != self._here[0] * self._here[1]:
            return
        at = own_rows(context, self._layers.own_pass.context, call.at)
        if at is None:
            return
        if at is not call.at:
            places = dict(zip(call.at, at, strict=True))
            order = [places.get(n, 0) for n in range(1 + call.at[-1])]
            query, key = query[order], key[order]
        here = as_usual if self._here == self.size else replace(as_usual, resize=self._from(self._here))
        if not self._untouched.known:
            query, key = self._untouched.copies(query, key)
        call.sum.add(query, key, here)

    def _after_last_key(self, as_usual: Layer, context: Tensor, key: Tensor) -> None:
        self._after_key(as_usual, context, key)
        if self._call is not None:  # the large feature maps come now: what waits would add to their memory
            self._call.sum.work_out()

    def _from(self, here: tuple[int, int]) -> Callable[[Tensor], Tensor]:
        """Maps ``[rows, pixels, T]`` of layers of size ``here`` at the usual size."""
        if here not in self._resizes:
            self._resizes[here] = partial(self._resized, here)
        return self._resizes[here]

    def _resized(self, here: tuple[int, int], maps: Tensor) -> Tensor:
        return _pixels(self._resize(maps.transpose(1, 2).unflatten(-1, here)))

    def _weights_of(
        self, rows: Sequence[Row], weights: Weights, context: int, device: torch.device, dtype: torch.dtype
    ) -> Tensor:
        """``[rows, context, T]`` and columns of zeros; they seldom change from step to step."""
        own = [weights(row, context) for row in rows]
        key = [*map(id, own), device, dtype]
        if self._known is None or key != self._known[0]:
            self._known = key, own, columns(torch.stack(own).to(device), dtype)
        return self._known[2]


def _pixels(maps: Tensor) -> Tensor:
    """``[rows, T, h, w]`` → ``[rows, pixels, T]``."""
    return maps.flatten(2).transpose(1, 2)


class _Untouched:
    """Whether the host leaves its projections as they are, so that they need not be copied to be
    read later.

    An attention back end might scale its query in place. The first model call shows it
    (:attr:`known`); until then, and if one does, copies are made.
    """

    def __init__(self) -> None:
        self.known = False
        self._touched = False
        self._seen: list[tuple[Tensor, int | Tensor]] = []
        self._changed: list[Tensor] = []

    def copies(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Both as they are now."""
        copies = query.clone(), key.clone()
        if not self._touched:
            self._look()  # at those of the layer before, which is done
            # Inference tensors do not count how often they are written to.
            now = [c if p.is_inference() else p._version for p, c in zip((query, key), copies, strict=True)]
            self._seen = list(zip((query, key), now, strict=True))
        return copies

    def end(self) -> None:
        """Take in that a model call is over."""
        if self._seen:
            self._look()
            self._touched = self._touched or any(map(bool, self._changed))
            self.known = not self._touched
            self._changed.clear()

    def _look(self) -> None:
        for projected, before in self._seen:
            if isinstance(before, int):
                self._touched = self._touched or projected._version != before
            else:
                self._changed.append((projected != before).any())
        self._seen = []


class _Rows:
    """The recorded rows of one call of the UNet, ``at`` their places in its batch, and what was
    seen of them so far.

    The call has ``count`` rows; it is the UNet's ``number``-th, once it is known.
    """

    def __init__(self, at: list[int], rows: list[Row], weights: WeightsFor, count: int):
        # A run of rows is taken as a view; the hosts put the conditional ones together.
        run = slice(at[0], at[-1] + 1) if at[-1] - at[0] == len(at) - 1 else at
        self.at, self.rows, self.count = at, rows, count
        self.number: int | None = None
        self.sum = AttentionSum(run, weights)
