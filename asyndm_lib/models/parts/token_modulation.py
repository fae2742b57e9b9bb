"""A timestep for every token of a transformer's picture, in its plain form (docs/METHOD.md, section
5).

A transformer sees the timestep only through the modulations (adaLN) of its blocks: a vector ``[n,
k·D]`` of shifts, scales and gates for each row. Here every token of the picture gets the vector of
its own level. Text, pads, registers and reference pictures keep the row's.
:class:`tabled_modulation.TabledModulation` does the same in less time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..family import Size
from .own_pass import OwnPass
from .patching import replaced, watched
from .resampling import cells


@dataclass(frozen=True)
class ModulationSites:
    """The places of a transformer through which the timestep reaches its picture.

    ``patches`` makes a feature map ``[n, D, h, w]`` of the latents, with a pixel for each token.
    ``time`` makes embeddings ``[n, E]`` of its first argument, timesteps ``[n]``. ``label``, where
    there is one, makes what is added to each row's. Each of ``modulations`` makes vectors ``[n,
    k·D]`` of the sum, for the picture's tokens alone.
    """

    patches: nn.Module
    time: nn.Module
    label: nn.Module | None
    modulations: Sequence[nn.Module]
    own_pass: OwnPass


class TokenModulation:
    """The plain :class:`family.CellTimesteps` of a transformer.

    A row whose cells are all at one level is the model's own call at that level, its text too. A
    cell on the synchronous clock has what the model's own layers give for its row.
    """

    problems: Set[str] = frozenset()

    def __init__(self, sites: ModulationSites):
        self._sites, self._attached = sites, ExitStack()
        self._call: Call | None = None

    def attach(self) -> None:
        """Put the hooks on the model."""
        sites, attached = self._sites, self._attached
        attached.callback(sites.own_pass.detach)
        sites.own_pass.attach()
        time = sites.time
        attached.callback(time.register_forward_pre_hook(self._before_time, with_kwargs=True).remove)
        attached.callback(time.register_forward_hook(self._after_time, with_kwargs=True).remove)
        if sites.label is not None:
            attached.callback(sites.label.register_forward_hook(self._after_label).remove)
        attached.enter_context(watched(sites.patches, self._after_patches))
        for layers in sites.modulations:
            forward = partial(self._modulate, layers.forward)
            attached.enter_context(replaced(layers, "forward", forward))

    def detach(self) -> None:
        """Take the hooks off the model."""
        self._attached.close()
        self._call = None

    @contextmanager
    def use(self, timesteps: Tensor, index: Tensor, coming: Iterable[Tensor] | None = ()) -> Iterator[None]:
        """Cell ``p`` of row ``n`` is at ``timesteps[index[n, 0, p]]`` in one call of the model.

        Waits for the device once: which rows have one level decides what is to be done.
        """
        self._call = Call(timesteps, index) if len(timesteps) > 1 else None
        try:
            yield
        finally:
            self._call = None

    def _before_time(self, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        """The timesteps of rows that are at another level than the host's as a whole."""
        call = self._call
        if call is None or call.embedding or not any(call.levels):
            return None
        levels = torch.tensor(call.levels, device=call.timesteps.device)
        own = torch.where(levels == 0, args[0], call.timesteps[levels].to(args[0]))
        return (own, *args[1:]), kwargs

    def _after_time(self, module: nn.Module, args: tuple, kwargs: dict, output: Tensor) -> None:
        call = self._call
        if call is None or call.embedding or not call.mixed:
            return
        call.embedding = True  # the module is called again from here
        call.lagging = self._lagging(lambda t: module(t.to(args[0]), *args[1:], **kwargs), call.timesteps[1:], output)
        call.embedding = False

    def _after_label(self, module: nn.Module, args: tuple, output: Tensor) -> None:
        if self._call is not None and self._call.lagging is not None:
            self._call.lagging = self._call.lagging + output

    def _after_patches(self, output: Tensor) -> None:
        if self._call is not None:
            self._call.size = (output.shape[-2], output.shape[-1])

    def _modulate(self, forward: Callable[[Tensor], Tensor], emb: Tensor) -> Any:
        """What stands for the modulations of ``emb [n, E]``; the model's own where no token lags.
        """
        call = self._call
        if call is None or call.lagging is None or not self._sites.own_pass.here:
            return forward(emb)
        return self._of_tokens(call, forward, emb)

    def _lagging(self, embed: Callable[[Tensor], Tensor], timesteps: Tensor, own: Tensor) -> Tensor:
        """The embeddings of ``timesteps [L]`` for every row, ``[L, n, E]`` with ``own [n, E]``."""
        return torch.stack([embed(t.expand(len(own))) for t in timesteps])

    def _of_tokens(self, call: Call, forward: Callable[[Tensor], Tensor], emb: Tensor) -> Any:
        """The modulations of every token, from those of ``emb [n, E]`` and of the lagging levels.
        """
        assert call.lagging is not None
        table = [forward(emb), *(forward(lagging) for lagging in call.lagging)]
        return _OfTokens(torch.stack(table), call.tokens)


class _OfTokens:
    """Stands for a modulation ``[n, k·D]``, of which a model takes a chunk and then adds a
    dimension for its tokens.
    """

    def __init__(self, table: Tensor, levels: Tensor):
        """``table`` ``[L, n, k·D]``. ``levels`` ``[n, tokens]`` are the tokens' of it."""
        self._table, self._levels = table, levels

    def chunk(self, chunks: int, dim: int = -1) -> list[_OfTokens]:
        """Parts of the vectors."""
        return [_OfTokens(part, self._levels) for part in self._table.chunk(chunks, dim=-1)]

    def unsqueeze(self, dim: int) -> Tensor:
        """The vector of every token, ``[n, tokens, D]``."""
        rows = torch.arange(len(self._levels), device=self._levels.device)[:, None]
        return self._table[self._levels, rows]


class Call:
    """One call of the model.

    ``levels``: the level of each row as a whole, that of its text. ``mixed``: whether a row has
    cells at several. ``lagging``: the embeddings of all levels but the first, ``[L - 1, n, E]``.
    ``size``: rows and columns of the picture's tokens.
    """

    def __init__(self, timesteps: Tensor, index: Tensor):
        self.timesteps = timesteps
        self.lagging: Tensor | None = None
        self.embedding = False
        self.size: Size = (index.shape[-2], index.shape[-1])
        flat = index.flatten(1)
        alike = (flat == flat[:, :1]).all(dim=1)
        levels = torch.where(alike, flat[:, 0], -1).tolist()
        self.mixed, self.alike = -1 in levels, any(level >= 0 for level in levels)
        self.levels = [max(level, 0) for level in levels]
        # A row as a whole has what the model gives for it, which is the table's first.
        self._index = index.masked_fill(alike.view(-1, 1, 1, 1), 0) if self.mixed and self.alike else index

    @property
    def tokens(self) -> Tensor:
        """The level of every token, int64 ``[n, tokens]``."""
        flat, size = self._index.flatten(1), (self._index.shape[-2], self._index.shape[-1])
        return flat if self.size == size else flat.index_select(1, cells(self.size, size, flat.device))
