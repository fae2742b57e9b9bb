"""The timestep embedding of a table of levels, as every ResBlock of a UNet uses it.

What costs time here is not the arithmetic but the number of calls, so the blocks' tables are made
together, and those of coming model calls along with them where their timesteps are known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor, nn

TOGETHER = 128
"""Rows up to which a table is made for all blocks at once; longer ones, which cost memory, are made
block by block."""

LEVELS = 256
"""Lagging levels up to which a pixel's row of a table is looked up."""

AHEAD = 64
"""Rows that are made together, as far as coming calls have them."""

DRIFT = 0.02
"""A share of a table by which rounding never changes it."""


class Block:
    """One ResBlock's ``emb_layers``, as it is when a run begins.

    A ``usual`` block has an activation (``activate``) and then a linear layer (``project``), from
    ``[rows, E]`` to ``[rows, C]``.
    """

    activate: nn.Module
    project: nn.Module

    def __init__(self, layers: nn.Module):
        self.forward = layers.forward
        inner = [module for module in layers._modules.values() if module is not None]
        # Every block begins with the same activation of the same embedding: it is worth making
        # once.
        self.usual = len(inner) == 2 and isinstance(inner[0], nn.SiLU) and "forward" not in layers.__dict__
        if self.usual:
            self.activate, self.project = inner


class Embeddings:
    """The time embeddings of one call: a row for each row of its batch, then the lagging levels.

    ``rows`` are its rows of the chunk's. The first ``n`` are the batch's, for the UNet to fill in.
    ``label`` ``[n, E]`` is what an SDXL-like model adds to each row of the batch; None without one.
    """

    def __init__(self, chunk: _Chunk, rows: slice):
        self.chunk, self.rows, self.n = chunk, rows, chunk.n
        self.label: Tensor | None = None
        self.emb: Tensor | None = None
        self.activated: Tensor | None = None
        self.table: Tensor | None = None
        self.channels: dict[Block, tuple[int, int]] = {}  # their first and last of ``table``

    def lagging(self) -> Tensor:
        """The embeddings of the lagging levels; with labels one for each row of the batch."""
        levels = self.chunk.levels[self.rows][self.n :]
        return levels if self.label is None else (levels[:, None] + self.label).flatten(0, 1)

    def __len__(self) -> int:
        """How many rows a table has."""
        lagging = self.rows.stop - self.rows.start - self.n
        return self.n + lagging * (1 if self.label is None else self.n)


class BlockTables:
    """What the blocks make of the embeddings, held no longer than the parameters stay as they are.
    """

    def __init__(self, time_embed: nn.Module, blocks: Sequence[Block]):
        self._blocks = [block for block in blocks if block.usual]
        self._layers = [block.project for block in self._blocks]
        self._time_layers = [module for module in time_embed.modules() if not module._modules]
        self._chunks: dict[int, _Chunk] = {}  # by ``n``
        self._rows: dict[tuple, Tensor] = {}
        self._layouts: dict[tuple[Block, int], dict[Block, tuple[int, int]]] = {}
        self._drifts: list[Tensor] = []

    def clear(self) -> None:
        """Forget what was made."""
        self._chunks.clear()
        self._rows.clear()

    def embeddings(
        self, own: Tensor, timesteps: Tensor, coming: Iterable[Tensor] | None, embed: Callable[[Tensor], Tensor]
    ) -> Embeddings:
        """The embeddings of ``timesteps``, the first of which is that of the batch's rows.

        ``own`` ``[n, E]`` is the UNet's embedding of those rows. ``coming`` are the timesteps of
        later calls, if known; None if nothing may be made ahead. ``embed`` makes embeddings
        ``[L, E]`` of timesteps ``[L]``.
        """
        n = len(own)
        if coming is None:
            self._chunks.clear()
        chunk, state = self._chunks.get(n), _state(self._time_layers)
        if chunk is not None and (chunk.state != state or chunk.levels.dtype != own.dtype):
            chunk = None
        if chunk is None or id(timesteps) not in chunk.starts:
            if chunk is None or chunk.served == chunk.last:
                self._chunks.pop(n, None)  # two of them at once would be the most memory that a run takes
            tables = [timesteps]
            for table in () if state is None else coming or ():
                if sum(map(len, tables)) + len(table) + n * (len(tables) + 1) > AHEAD:
                    break
                tables.append(table)
            chunk = _Chunk(n, tables, embed, state)
            if len(tables) > 1:
                self._chunks[n] = chunk
        chunk.served = id(timesteps)
        start = chunk.starts[chunk.served]
        self._compare(chunk, own, chunk.levels[start : start + n])
        return Embeddings(chunk, slice(start, start + n + len(timesteps) - 1))

    def table(self, block: Block, emb: Tensor, of: Embeddings) -> tuple[Tensor, dict[Block, tuple[int, int]]]:
        """What ``block`` and others make of the rows' own ``emb [n, E]`` and the lagging levels.

        The table is ``[len(of), ΣC]``; with it comes where each block's channels begin and end.
        """
        if not block.usual:
            table = torch.cat([block.forward(emb), block.forward(of.lagging())])
            return table, {block: (0, table.shape[1])}
        if emb is not of.emb:
            of.emb, of.activated, of.channels = emb, block.activate(emb), {}
        if of.table is None or of.activated is None or block not in of.channels:
            assert of.activated is not None
            blocks = self._together(block, emb, of, _state(self._layers))
            own = [b.project(of.activated) for b in blocks]
            # Asked anew: a LoRA may be put into a layer's weights where the layer is called.
            state = _state(self._layers)
            ahead = of.chunk is self._chunks.get(of.n) and of.label is None and len(blocks) > 1
            projected = self._ahead(blocks, of.chunk, state) if ahead and state is not None else None
            rows = torch.cat(own, dim=1)
            if projected is not None and projected.dtype == rows.dtype:
                of.table = projected[of.rows]
                self._compare(of.chunk, rows, of.table[: of.n])
                # The batch's rows have just what the UNet itself would get, in the place that is
                # kept for it.
                of.table[: of.n].copy_(rows)
            else:
                activated = block.activate(of.lagging())
                of.table = torch.cat([rows, torch.cat([b.project(activated) for b in blocks], dim=1)])
            of.channels = self._layout(blocks, own)
        return of.table, of.channels

    @property
    def drifted(self) -> bool:
        """Whether the layers came to make something else, and no change of them was seen.

        Waits for the device.
        """
        return any(drift.item() > DRIFT for drift in self._drifts)

    def _compare(self, chunk: _Chunk, own: Tensor, ahead: Tensor) -> None:
        """Take down how far the batch's ``own`` rows are from those made ``ahead``.

        It is done in the last call of a chunk, where a change since it was made has shown.
        """
        if self._chunks.get(chunk.n) is chunk and chunk.served == chunk.last:
            self._drifts.append((own - ahead).norm() / own.norm())

    def rows(self, of: Embeddings, index: Tensor) -> Tensor:
        """The row of the table for every pixel, ``[n, H·W]``, of levels ``[n, 1, H, W]``."""
        key = of.n, index.device
        if key not in self._rows:
            numbers = torch.arange(of.n, device=index.device)[:, None]
            lagging = torch.arange(of.n, of.n + LEVELS, device=index.device)
            self._rows[key] = torch.cat([numbers, lagging.expand(of.n, -1)], dim=1)
        rows, levels = self._rows[key], index.flatten(1)
        if of.label is not None:
            return torch.add(rows[:, :1], levels, alpha=of.n)
        if len(of) > LEVELS:
            return torch.where(levels == 0, rows[:, :1], levels + (of.n - 1))
        return rows.gather(1, levels)

    def _layout(self, blocks: Sequence[Block], own: Sequence[Tensor]) -> dict[Block, tuple[int, int]]:
        """Where the channels of each of ``blocks``, which made ``own``, begin and end in a table.
        """
        key = blocks[0], len(blocks)
        if key not in self._layouts:
            ends = accumulate((rows.shape[1] for rows in own), initial=0)
            self._layouts[key] = dict(zip(blocks, pairwise(ends), strict=True))
        return self._layouts[key]

    def _together(self, block: Block, emb: Tensor, of: Embeddings, state: object) -> list[Block]:
        if of.chunk.projected is not None and of.chunk.projected_state == state:
            return self._blocks
        # Parameters elsewhere are moved to the device when their block's turn comes.
        here = len(of) <= TOGETHER and {p.device for p in _parameters(self._layers)} == {emb.device}
        return self._blocks if here else [block]

    def _ahead(self, blocks: Sequence[Block], chunk: _Chunk, state: object) -> Tensor:
        """The tables ``[R, ΣC]`` of the chunk's calls, while nobody changes the parameters."""
        if chunk.projected is None or chunk.projected_state != state:
            activated = blocks[0].activate(chunk.levels)
            chunk.projected = torch.cat([block.project(activated) for block in blocks], dim=1)
            chunk.projected_state = state
        return chunk.projected


class _Chunk:
    """The levels of some calls: their time embeddings ``[R, E]``, and what the blocks make of them.

    Each call has ``n`` rows for those of its batch, then one for every lagging level.
    """

    def __init__(self, n: int, tables: Sequence[Tensor], embed: Callable[[Tensor], Tensor], state: object):
        self.n, self.state = n, state
        self.starts: dict[int, int] = {}
        self.served, self.last = 0, id(tables[-1])
        self._tables = tables  # which keeps their ids theirs
        start = 0
        for table in tables:
            self.starts[id(table)] = start
            start += n + len(table) - 1
        self.levels = embed(torch.cat([part for table in tables for part in (table[:1].expand(n), table[1:])]))
        self.projected: Tensor | None = None
        self.projected_state: object = None


def _parameters(layers: Sequence[nn.Module]) -> list[Tensor]:
    """The present parameters of ``layers``, which anybody may exchange."""
    found: list[Tensor] = []
    for layer in layers:
        inner = layer.parameters() if layer._modules else layer._parameters.values()
        found += [parameter for parameter in inner if parameter is not None]
    return found


def _state(layers: Sequence[nn.Module]) -> tuple | None:
    """Something that changes whenever what ``layers`` compute may change.

    It is None where they are hooked or have another ``forward``, since what those do in a later
    step nobody knows, and where nobody counts how often a parameter is written to.
    """
    for layer in layers:
        if layer._forward_hooks or layer._forward_pre_hooks or "forward" in layer.__dict__:
            return None
    parameters = _parameters(layers)
    if any(map(Tensor.is_inference, parameters)):
        return None
    versions = [p._version for p in parameters]
    return torch.is_inference_mode_enabled(), list(map(Tensor.data_ptr, parameters)), versions
