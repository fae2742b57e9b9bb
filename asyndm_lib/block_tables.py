"""The timestep embedding of a table of levels, as every ResBlock of a UNet uses it.

What costs time here is not the arithmetic but the number of calls, so the blocks' tables are made together,
and those of coming model calls along with them where their timesteps are known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor, nn

TOGETHER = 128
"""Tables of up to this many columns are made for all blocks at once; longer ones, which cost memory, block by block."""

AHEAD = 32
"""So many lagging levels are embedded together, as far as coming calls have them."""


class Block:
    """One ResBlock's ``emb_layers``, as it is when a run begins."""

    def __init__(self, layers: nn.Module):
        self.forward = layers.forward
        self._layers = layers
        # Every block begins with the same activation of the same embedding: it is worth making once.
        self.usual = len(layers) == 2 and isinstance(layers[0], nn.SiLU) and "forward" not in vars(layers)

    def activate(self, emb: Tensor) -> Tensor:
        """The activation before the linear layer of a usual block."""
        return self._layers[0](emb)

    def project(self, activated: Tensor) -> Tensor:
        """The linear layer of a usual block: ``[rows, E]`` → ``[rows, C]``."""
        return self._layers[1](activated)

    def parameters(self) -> list[Tensor]:
        """Of its layers."""
        return list(self._layers.parameters())


class Embeddings:
    """The time embeddings ``[L - 1, E]`` of one call's lagging levels (all but the first), and what the UNet adds.

    ``label``: ``[N, E]``, what an SDXL-like model adds to each row of the batch; None without one.
    """

    def __init__(self, chunk: _Chunk, rows: slice):
        self.chunk, self.rows = chunk, rows
        self.label: Tensor | None = None
        self.emb: Tensor | None = None
        self.activated: Tensor | None = None
        self.table: Tensor | None = None
        self.rows_of: dict[Block, tuple[int, int]] = {}  # their first and last of ``table``

    def __len__(self) -> int:
        return self.rows.stop - self.rows.start

    def lagging(self) -> Tensor:
        """The whole embeddings of the lagging levels; with labels every level has one for each row of the batch."""
        levels = self.chunk.levels[self.rows]
        return levels if self.label is None else (levels[:, None] + self.label).flatten(0, 1)

    def columns(self, index: Tensor, rows: Tensor) -> Tensor:
        """Levels ``[N, 1, H, W]`` → columns of a table: those of the batch's rows, then those of :meth:`lagging`.

        ``rows``: their numbers, ``[N, 1, 1, 1]``.
        """
        n = len(index)
        if self.label is not None:
            return torch.add(rows, index, alpha=n)
        return torch.where(index == 0, rows, index + (n - 1))


class BlockTables:
    """What the blocks make of the embeddings, held no longer than the parameters stay as they are."""

    def __init__(self, time_embed: nn.Module, blocks: Sequence[Block]):
        self._blocks = [block for block in blocks if block.usual]
        self._parameters = [p for block in self._blocks for p in block.parameters()]
        self._time_parameters = list(time_embed.parameters())
        # Of inference tensors nobody can tell whether they were written to.
        self._watched = not any(p.is_inference() for p in [*self._parameters, *self._time_parameters])
        self._chunk: _Chunk | None = None

    def clear(self) -> None:
        """Forget what was made."""
        self._chunk = None

    def embeddings(self, timesteps: Tensor, coming: Iterable[Tensor], embed: Callable[[Tensor], Tensor]) -> Embeddings:
        """Of ``timesteps[1:]``; ``embed``: ``[L]`` → ``[L, E]``. ``coming``: the timesteps of later calls, if known."""
        chunk, state = self._chunk, _state(self._time_parameters) if self._watched else None
        if chunk is None or chunk.state != state or id(timesteps) not in chunk.starts:
            tables = [timesteps]
            for table in coming if self._watched else ():
                if sum(map(len, tables)) + len(table) > AHEAD:
                    break
                tables.append(table)
            chunk = _Chunk(tables, embed, state)
            if len(tables) > 1:
                self._chunk = chunk
        start = chunk.starts[id(timesteps)]
        return Embeddings(chunk, slice(start, start + len(timesteps) - 1))

    def table(self, block: Block, emb: Tensor, of: Embeddings) -> tuple[Tensor, dict[Block, tuple[int, int]]]:
        """``[ΣC, N + lagging]``: what ``block`` and others make of the rows' own ``emb [N, E]`` and the lagging levels.

        With the table, where each block's ``C`` rows begin and end in it.
        """
        if not block.usual:
            table = torch.cat([block.forward(emb).t(), block.forward(of.lagging()).t()], dim=1)
            return table, {block: (0, len(table))}
        if emb is not of.emb:
            of.emb, of.activated, of.rows_of = emb, block.activate(emb), {}
        if block not in of.rows_of:
            blocks = self._together(block, emb, of)
            own = [b.project(of.activated) for b in blocks]
            ahead = of.chunk is self._chunk and of.label is None and len(blocks) > 1
            lagging = self._ahead(blocks, of) if ahead else self._now(blocks, of)
            of.table = torch.cat([torch.cat(own, dim=1).t(), lagging.t()], dim=1)
            ends = accumulate((rows.shape[1] for rows in own), initial=0)
            of.rows_of = dict(zip(blocks, pairwise(ends), strict=True))
        return of.table, of.rows_of

    def _together(self, block: Block, emb: Tensor, of: Embeddings) -> list[Block]:
        columns = len(emb) + len(of) * (1 if of.label is None else len(emb))
        # Parameters elsewhere are moved to the device when their block's turn comes.
        device = emb.device
        here = columns <= TOGETHER and all(p.device == device for p in self._parameters)
        return self._blocks if here else [block]

    def _now(self, blocks: Sequence[Block], of: Embeddings) -> Tensor:
        activated = blocks[0].activate(of.lagging())
        return torch.cat([block.project(activated) for block in blocks], dim=1)

    def _ahead(self, blocks: Sequence[Block], of: Embeddings) -> Tensor:
        """As :meth:`_now`, with the chunk's other calls, as long as nobody changes the parameters."""
        chunk, state = of.chunk, _state(self._parameters) if self._watched else None
        if chunk.projected is None or chunk.projected_state != state:
            activated = blocks[0].activate(chunk.levels)
            chunk.projected = torch.cat([block.project(activated) for block in blocks], dim=1)
            chunk.projected_state = state
        return chunk.projected[of.rows]


class _Chunk:
    """The lagging levels of some calls: their time embeddings ``[R, E]``, and what the blocks make of them."""

    def __init__(self, tables: Sequence[Tensor], embed: Callable[[Tensor], Tensor], state: object):
        self.state = state
        self.starts: dict[int, int] = {}
        self._tables = tables  # which keeps their ids theirs
        start = 0
        for table in tables:
            self.starts[id(table)] = start
            start += len(table) - 1
        self.levels = embed(torch.cat([table[1:] for table in tables]))
        self.projected: Tensor | None = None
        self.projected_state: object = None


def _state(parameters: Sequence[Tensor]) -> list[tuple[int, int]]:
    """What changes whenever one of ``parameters`` is written to."""
    return [(p.data_ptr(), p._version) for p in parameters]
