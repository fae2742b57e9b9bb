"""GroupNorm by noise level: each pixel is normalised as it would be in a picture of its level alone
(docs/METHOD.md, section 3).

A GroupNorm pools its statistics over all pixels, and a mixture of levels has other statistics than
a picture at any of them. Let ``m_l``, ``v_l`` be a group's mean and variance in a picture at level
``l`` alone. Of a picture of which a share ``w_l`` is at each level they make the mixture's

    m = Σ w_l·m_l        v = Σ w_l·(v_l + m_l²) - m²

The model has pooled ``M`` and ``V``. What it pools at level ``l`` alone differs from these as
``m_l``, ``v_l`` do from ``m``, ``v``: its mean is ``M + (m_l - m)·√(V/v)``, its variance
``V·v_l/v``. With these a pixel whose normalised value is ``n = (x - M)/√V`` has
``n·√(v/v_l) - s_l``, so that the layer's own output ``y = n·weight + bias`` becomes

    y + (y - bias)·g_l - weight·s_l        g_l = √(v/v_l) - 1        s_l = (m_l - m)/√v_l

where neither ``M`` nor ``V`` occurs. In a picture at one level both factors are 0.

The ``m_l`` and ``v_l`` are those that the same rows had in an ordinary pass before, in whose calls
all pixels are at one level. Between its levels they are interpolated, and beyond them they are
those of the nearest. They can't be had from the pass that makes the picture: what it pools comes of
its own corrections, which grow from step to step (docs/METHOD.md, section 6).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import accumulate

import torch
from torch import Tensor, nn

from ..family import Row, Size
from .own_pass import OwnPass
from .patching import forward_of, replaced
from .renormalising import renormalised
from .resampling import cells

SAME = 1e-5
"""A share of the largest timestep below which two timesteps are one."""

LEAST = 1e-8
"""The least variance of a group."""

UNSEEN = (
    "in some steps the model's normalisation was not by level, since another extension leaves out or replaces parts of "
    "the model, or has it work on pieces of the picture"
)


class LevelNorms:
    """Has ``norms`` normalise every pixel by its level. It holds statistics of a run."""

    def __init__(self, norms: Sequence[nn.GroupNorm], own_pass: OwnPass):
        self._norms, self._own_pass = norms, own_pass
        self._groups = [norm.num_groups for norm in norms]
        self._starts = [2 * before for before in accumulate(self._groups, initial=0)]
        self._attached = ExitStack()
        self._learning = False
        self._known: dict[Row, Statistics] = {}
        self._tables: dict[tuple[Row, ...], Table | None] = {}
        self._places: dict[tuple, Tensor] = {}
        self._counts: dict[tuple[int, ...], Tensor] = {}
        self._call: _Call | None = None
        self._unseen = False

    @property
    def problems(self) -> Set[str]:
        """What the person should be told."""
        return {UNSEEN} if self._unseen else set()

    def attach(self) -> None:
        """Put the hooks on the model. They do nothing outside :meth:`use`."""
        self._attached.callback(self._own_pass.detach)
        self._own_pass.attach()
        for number, norm in enumerate(self._norms):
            forward = partial(self._normalised, number, forward_of(norm))
            self._attached.enter_context(replaced(norm, "forward", forward))

    def detach(self) -> None:
        """Take the hooks off the model, and forget the statistics."""
        self._attached.close()
        self._known.clear()
        self._tables.clear()
        self._places.clear()
        self._counts.clear()
        self._call = None

    @contextmanager
    def learning(self) -> Iterator[None]:
        """Inside it calls are an ordinary pass's, whose pixels are all at the first timestep: their
        statistics are taken down."""
        self._learning = True
        self._tables.clear()
        try:
            yield
        finally:
            self._learning = False

    @contextmanager
    def use(self, rows: Sequence[Row] | None, timesteps: Tensor, index: Tensor) -> Iterator[None]:
        """Pixel ``p`` of row ``n`` is at ``timesteps[index[n, 0, p]]`` in one call of the model.

        ``rows`` are the names of the batch's rows, by which their statistics are known in later
        calls; None for pieces of pictures, which are left as the model has them.
        """
        mixed = len(timesteps) > 1 and not self._learning
        table = self._table(tuple(rows)) if mixed and rows is not None else None
        if not self._learning and table is None:
            self._unseen |= mixed
            yield
            return
        mixture = None if table is None else table.mixture(timesteps, index)
        self._call = call = _Call(mixture, index, sums={} if self._learning else None)
        try:
            yield
            if rows is not None and call.sums is not None:
                self._learn(rows, timesteps, call.sums)
            self._unseen |= mixture is not None and len(call.seen) < len(self._norms)
        finally:
            self._call = None

    def _normalised(self, number: int, forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        call = self._call
        if call is None or x.dim() != 4 or len(x) != len(call.index) or not self._own_pass.here:
            return forward(x)
        norm = self._norms[number]
        call.seen.add(number)
        if call.sums is not None and number not in call.sums:
            groups = x.detach().reshape(len(x), norm.num_groups, -1)
            # In single precision: a variance in half precision may be beyond its numbers.
            length = torch.linalg.vector_norm(groups, dim=2, dtype=torch.float32)
            call.sums[number] = groups.mean(dim=2, dtype=torch.float32), length, groups.shape[2]
        y = forward(x)
        if call.mixture is None:
            return y
        factors, first, width = self._factors(call, y.dtype), self._starts[number], 2 * norm.num_groups
        size = (x.shape[-2], x.shape[-1])
        at = self._index(call, size).expand(-1, width, -1)
        # A number for each group and pixel is gathered: for each channel it would be many more.
        maps = factors.narrow(1, first, width).gather(2, at).unflatten(2, size).unsqueeze(2)
        shift, gain = maps.chunk(2, dim=1)  # [N, G, 1, h, w]
        weight, bias = (
            own.detach().to(y).view(norm.num_groups, -1, 1, 1) for own in (norm.weight, norm.bias)
        )  # [G, C/G, 1, 1]
        return renormalised(y.unflatten(1, (norm.num_groups, -1)), weight, bias, shift, gain).flatten(1, 2)

    def _table(self, rows: tuple[Row, ...]) -> Table | None:
        """What an ordinary pass told of ``rows``; None unless it told of all."""
        if rows not in self._tables:
            known = [self._known[row] for row in rows if row in self._known]
            self._tables[rows] = Table(known) if len(known) == len(rows) else None
        return self._tables[rows]

    def _learn(self, rows: Sequence[Row], timesteps: Tensor, sums: _Sums) -> None:
        """Take down what each row pooled. One that several of a pass's calls hold (an extension's
        guidance) counts once at the same ``timesteps``, and a call that left out layers never."""
        if len(sums) < len(self._norms):
            return
        pooled = self._pooled(sums)
        for number, row in enumerate(rows):
            self._known.setdefault(row, Statistics()).add(timesteps, pooled[:, number])

    def _pooled(self, sums: _Sums) -> Tensor:
        """Means of all groups, and the logarithms of their standard deviations, ``[2, N, G]``."""
        means, lengths, counts = zip(*(sums[number] for number in range(len(self._norms))), strict=True)
        if counts not in self._counts:
            self._counts[counts] = torch.tensor(counts).repeat_interleave(torch.tensor(self._groups)).to(means[0])
        mean = torch.cat(means, dim=1)
        variance = torch.cat(lengths, dim=1).square() / self._counts[counts] - mean.square()
        return torch.stack([mean, 0.5 * variance.clamp(min=LEAST).log()])

    def _factors(self, call: _Call, dtype: torch.dtype) -> Tensor:
        """``[N, 2·ΣG, L]``: of each layer first its groups' shifts, then their gains."""
        if dtype not in call.factors:
            assert call.mixture is not None
            shifts, gains = (values.split(self._groups, -1) for values in call.mixture.factors())
            table = torch.cat([part for pair in zip(shifts, gains, strict=True) for part in pair], dim=-1)
            call.factors[dtype] = table.to(dtype).transpose(1, 2)
        return call.factors[dtype]

    def _index(self, call: _Call, size: Size) -> Tensor:
        """The level of every pixel of a feature map, ``[N, 1, h·w]``."""
        if size not in call.at:
            index = call.index
            key = size, index.shape[-2:], index.device
            if key not in self._places:
                self._places[key] = cells(size, index.shape[-2:], index.device)
            call.at[size] = index.flatten(2).index_select(2, self._places[key])
        return call.at[size]


_Sums = dict[int, tuple[Tensor, Tensor, int]]
"""By layer: every group's mean, the root of its sum of squares, and how many numbers it has."""


class _Call:
    """One call of the model. ``mixture`` is None where the layers are left as they are, ``sums``
    where they are not asked."""

    def __init__(self, mixture: Mixture | None, index: Tensor, sums: _Sums | None):
        self.mixture, self.index, self.sums = mixture, index, sums
        self.seen: set[int] = set()
        self.factors: dict[torch.dtype, Tensor] = {}
        self.at: dict[Size, Tensor] = {}


class Mixture:
    """What a picture of several levels would have for statistics.

    ``means`` and ``spreads``, the standard deviations' logarithms, are those at each level alone,
    ``[N, L, G]``; ``shares`` ``[N, L]`` how much of each row is at it.
    """

    def __init__(self, means: Tensor, spreads: Tensor, shares: Tensor):
        # A row at one level has, to the bit, what the model makes of it.
        self._mixed = (shares.amax(dim=1) < 1)[:, None, None]
        shares = shares[:, :, None]
        self._apart = means - (shares * means).sum(dim=1, keepdim=True)
        self._variances = (2 * spreads).exp()
        # Σ w_l·(v_l + (m_l - m)²) is v without the difference of two large numbers.
        spread = torch.addcmul(self._variances, self._apart, self._apart)
        self._variance = (shares * spread).sum(dim=1, keepdim=True)

    def factors(self) -> tuple[Tensor, Tensor]:
        """``s_l`` and ``g_l`` of every level, ``[N, L, G]``: 0 in rows at one level."""
        shifts = self._apart * self._variances.rsqrt()
        gains = (self._variance / self._variances).sqrt() - 1
        return torch.where(self._mixed, shifts, 0.0), torch.where(self._mixed, gains, 0.0)


class Statistics:
    """Means and standard deviations' logarithms of one row in the calls of an ordinary pass."""

    def __init__(self) -> None:
        self.timesteps: list[Tensor] = []  # [1]
        self.values: list[Tensor] = []  # [2, G]
        self._last: Tensor | None = None

    def add(self, timesteps: Tensor, values: Tensor) -> None:
        """``values`` ``[2, G]`` are those at the first of ``timesteps``; only the first at the same
        count."""
        if timesteps is not self._last:
            self.timesteps.append(timesteps[:1])
            self.values.append(values)
        self._last = timesteps

    def filled(self, count: int) -> tuple[Tensor, Tensor]:
        """``count`` timesteps ``[count]`` and values ``[count, 2, G]``, the last repeated."""
        at = [*range(len(self.timesteps)), *[-1] * (count - len(self.timesteps))]
        return torch.cat([self.timesteps[i] for i in at]), torch.stack([self.values[i] for i in at])


class Table:
    """The statistics of a batch's rows by timestep: between its timesteps linear, and beyond them
    those of the nearest."""

    def __init__(self, rows: Sequence[Statistics]):
        longest = max(max(len(row.timesteps) for row in rows), 2)
        timesteps, values = zip(*(row.filled(longest) for row in rows), strict=True)
        self._timesteps, order = torch.stack(timesteps).float().sort(dim=1)  # [N, S]
        self._values = torch.stack(values).flatten(2)
        self._values = self._values.gather(1, order[..., None].expand_as(self._values))  # [N, S, 2·G]
        gaps = self._timesteps.diff(dim=1)
        self._rates = torch.where(gaps > SAME * self._timesteps[:, -1:], 1 / gaps, 0.0)
        self._inner = self._timesteps[:, 1:-1].contiguous()

    def mixture(self, timesteps: Tensor, index: Tensor) -> Mixture:
        """The mixture to expect at these levels."""
        means, spreads = self.at(timesteps.float()).chunk(2, dim=2)
        return Mixture(means, spreads, shares(index, len(timesteps)))

    def at(self, timesteps: Tensor) -> Tensor:
        """The values of every row at ``timesteps [L]``, ``[N, L, 2·G]``."""
        wanted = timesteps.expand(len(self._timesteps), -1).contiguous()
        below = torch.searchsorted(self._inner, wanted)
        share = (wanted - self._timesteps.gather(1, below)) * self._rates.gather(1, below)
        # No product of matrices, which the hosts' autocast would have in half precision.
        lower, upper = (
            self._values.gather(1, place[..., None].expand(-1, -1, self._values.shape[2]))
            for place in (below, below + 1)
        )
        return torch.lerp(lower, upper, share.clamp(0.0, 1.0)[..., None])


def shares(index: Tensor, levels: int) -> Tensor:
    """How much of each row of ``index [N, 1, h, w]`` is at each level, ``[N, levels]``."""
    flat = index.flatten(1)
    ones = torch.ones((), device=index.device).expand_as(flat)
    return torch.zeros(len(flat), levels, device=index.device).scatter_add_(1, flat, ones) / flat.shape[1]
