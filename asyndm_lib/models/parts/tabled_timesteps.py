"""A timestep for every pixel of a UNet, with few calls: the accelerator of :mod:`pixel_timesteps`.

The tables of all blocks, and of coming model calls, are made together, and one gather serves
several blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Set
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from ...errors import Unmatched
from ..family import Size
from .level_tables import Block, BlockTables, Embeddings
from .patching import followed, replaced, watched
from .pixel_timesteps import TimeSites, timestep_embedding
from .resampling import cells

UNSEEN = (
    "another extension changed the model's weights while the picture was made, in a way that AsynDM does not see at "
    "once, so that what lags went by the weights before for some steps; switch it or AsynDM off"
)

UNKNOWN = (
    "another extension called the model within a call of it with pictures that AsynDM does not know; "
    "they had one noise level for all"
)
UNREACHED = (
    "the model ran without its layers, so its pixels had one noise level for all: another extension has recorded or "
    "replaced them; switch it or AsynDM off"
)
TAKEN = (
    "another extension exchanged a layer's forward while the picture was made, and AsynDM's with it; "
    "switch it or AsynDM off"
)

SPREAD = 8 * 2**20
"""How many bytes of feature maps are made ahead of the blocks that they are for."""


class TabledTimesteps:
    """The fast :class:`family.CellTimesteps` of a UNet.

    The hooks are one on ``time_embed``, one on ``label_emb`` where there is one, and those of
    :class:`own_pass.OwnPass`; in every ResBlock ``emb_layers`` and ``in_layers[-1]`` have another
    ``forward``.
    """

    def __init__(self, sites: TimeSites):
        self._sites = sites
        self._blocks = [(module, Block(module.emb_layers)) for module in sites.blocks]
        self._order = [block for _, block in self._blocks]
        self._tables = BlockTables(sites.time_embed, self._order)
        self._sizes: dict[Block, Size] = {}  # of the blocks' feature maps in the last call
        self._groups: dict[tuple, tuple[list[Block], list[int], int]] = {}  # as long as those stay
        self._places = _Places()
        self._attached = ExitStack()
        self._patches: list[tuple[nn.Module, Callable[[Tensor], Tensor]]] = []
        self._watches: list[followed] = []
        self._batch: Tensor | None = None  # of the call of the model that is known to us
        self._unknown = False
        self._own: _Call | None = None
        self._calls: dict[int, _Call] = {}  # by the rows of the batch
        self._embedding = False

    def attach(self) -> None:
        """Put the hooks on the UNet."""
        sites, attached = self._sites, self._attached
        attached.callback(sites.own_pass.detach)
        sites.own_pass.attach()
        attached.callback(sites.time_embed.register_forward_hook(self._after_time_embed).remove)
        if sites.label_emb is not None:
            attached.callback(sites.label_emb.register_forward_hook(self._after_label_emb).remove)
        for module, block in self._blocks:
            self._watches.append(attached.enter_context(watched(module.in_layers[-1], self._after_in_layers)))
            forward = partial(self._embed, block)
            self._patches.append((module.emb_layers, forward))
            attached.enter_context(replaced(module.emb_layers, "forward", forward))

    @property
    def problems(self) -> Set[str]:
        """What the person should be told afterwards. It waits for the device."""
        return ({UNSEEN} if self._tables.drifted else set()) | ({UNKNOWN} if self._unknown else set())

    def detach(self) -> None:
        """Take the hooks off the UNet, and forget the tables."""
        self._attached.close()
        self._tables.clear()
        self._patches.clear()
        self._watches.clear()
        self._forget()

    @contextmanager
    def use(self, timesteps: Tensor, index: Tensor, coming: Iterable[Tensor] | None = ()) -> Iterator[None]:
        """Pixel ``p`` of row ``n`` is at ``timesteps[index[n, 0, p]]`` in one call of the UNet."""
        self._look()
        calls = self._sites.own_pass.calls
        self._own = own = _Call(timesteps, index, coming, self._tables, self._places)
        self._calls[len(index)] = own
        try:
            yield
            reached = any(call.embeddings is not None for call in self._calls.values())
        finally:
            self._forget()
        if len(timesteps) > 1 and not reached and self._sites.own_pass.calls > calls:
            raise Unmatched(UNREACHED)

    def _look(self) -> None:
        """See to it that the coming call goes by our layers."""
        for module, forward in self._patches:
            if module.__dict__.get("forward") is not forward:
                raise Unmatched(TAKEN)
        for watch in self._watches:
            watch.look()

    def _forget(self) -> None:
        self._own = self._batch = None
        self._calls.clear()

    def _after_time_embed(self, module: nn.Module, args: tuple, output: Tensor) -> None:
        own, n = self._own, len(output)
        if own is None or self._embedding or len(own.timesteps) < 2:
            return
        call = self._calls.get(n)
        if call is None:  # somebody else's batch within the call
            call = self._calls[n] = _Call(own.timesteps, None, (), self._tables, self._places)
        if call.embeddings is not None:
            return
        self._embedding = True  # the module is called again from here
        # The UNet's own embedding serves the first level; ours the others, in the same precision.
        embed = partial(timestep_embedding, channels=args[0].shape[1])
        call.embeddings = self._tables.embeddings(
            output, call.timesteps, call.coming, lambda t: module(embed(t).to(args[0].dtype))
        )
        self._embedding = False

    def _after_label_emb(self, module: nn.Module, args: tuple, output: Tensor) -> None:
        call = self._calls.get(len(output))
        if call is not None and call.embeddings is not None:
            call.embeddings.label = output

    def _after_in_layers(self, output: Tensor) -> None:
        call = self._calls.get(len(output))
        if call is not None:
            call.size = (output.shape[-2], output.shape[-1])

    def _known(self, call: _Call) -> bool:
        """Whether the levels of the rows of ``call`` are known; those of a batch of another size
        are found by its pictures.
        """
        own, batch = self._own, self._sites.own_pass.batch
        assert own is not None
        assert own.index is not None
        if call is own:
            self._batch = batch if self._batch is None else self._batch
        elif call.index is None and not call.unknown:
            call.index = _found(own.index, self._batch, batch, call.embeddings.n if call.embeddings else 0)
            call.unknown = call.index is None
            self._unknown |= call.unknown
        return not call.unknown

    def _embed(self, block: Block, emb: Tensor) -> Tensor:
        """What a block adds for ``emb [N, E]``: ``[N, C, h, w]``, or ``[N, C]`` as it is."""
        call = self._calls.get(len(emb))
        if call is None or call.embeddings is None or not self._sites.own_pass.here:
            return block.forward(emb)
        if emb is not call.emb and not self._known(call):
            return block.forward(emb)
        size = call.size
        if self._sizes.get(block) != size:
            self._sizes[block] = size
            self._groups.clear()
        if emb is not call.emb:
            call.emb, call.ready = emb, {}
        ready = call.ready.pop(block, None)
        if ready is not None and ready.shape[-2:] == size:
            return ready
        return self._spread(call, call.embeddings, block, emb)

    def _spread(self, call: _Call, embeddings: Embeddings, block: Block, emb: Tensor) -> Tensor:
        """What ``block`` adds; for small feature maps also what the next blocks will add."""
        size = call.size
        table, channels = self._tables.table(block, emb, embeddings)
        n = emb.shape[0]
        key = block, len(channels), n, table.dtype
        if key not in self._groups:
            most = SPREAD // (n * size[0] * size[1] * table.element_size())
            self._groups[key] = self._group(block, channels, size, most)
        others, sizes, first = self._groups[key]
        together = call.spread(embeddings, table.narrow(1, first, sum(sizes)), n)
        if not others:
            return together
        own, *rest = together.split_with_sizes(sizes, dim=1)
        call.ready.update(zip(others, rest, strict=True))
        return own

    def _group(
        self, block: Block, channels: dict[Block, tuple[int, int]], size: Size, most: int
    ) -> tuple[list[Block], list[int], int]:
        """The blocks to be served along with ``block``, at most ``most`` channels together.

        With them comes how many channels ``block`` and each of them has, and where the first
        begins.
        """
        others: list[Block] = []
        first, last = channels[block]
        sizes = [last - first]
        for other in self._order[self._order.index(block) + 1 :]:
            if self._sizes.get(other) != size or other not in channels or channels[other][1] - first > most:
                break
            others.append(other)
            sizes.append(channels[other][1] - last)
            last = channels[other][1]
        return others, sizes, first


def _found(index: Tensor, known: Tensor | None, batch: Tensor | None, n: int) -> Tensor | None:
    """The levels ``[n, 1, H, W]`` of a ``batch`` of ``n`` rows, from those of the ``known`` batch.

    Rows are the same picture, or the known ones several times. The result is None if neither.
    """
    if index.stride(0) == 0:  # a single image's
        return index[:1].expand(n, -1, -1, -1)
    if known is not None and batch is not None and len(batch) == n and batch.shape[1:] == known.shape[1:]:
        rows = [next((row for row, own in enumerate(known) if torch.equal(own, one)), None) for one in batch]
        if None not in rows:
            return index[rows]
    return index.repeat(n // len(index), 1, 1, 1) if n % len(index) == 0 else None


class _Call:
    """One call of the UNet, or those with as many rows, as far as it is known.

    ``index`` is None until it is found, for good where ``unknown``.
    """

    def __init__(
        self,
        timesteps: Tensor,
        index: Tensor | None,
        coming: Iterable[Tensor] | None,
        tables: BlockTables,
        places: _Places,
    ):
        self.timesteps, self.index, self.coming = timesteps, index, coming
        self.embeddings: Embeddings | None = None
        self.unknown = False
        self.size: Size = (0, 0)
        self.emb: Tensor | None = None
        self.ready: dict[Block, Tensor] = {}
        self._tables, self._places = tables, places
        self._all: Tensor | None = None
        self._rows: dict[Size, Tensor] = {}
        self._expanded: dict[tuple, Tensor] = {}

    def spread(self, embeddings: Embeddings, table: Tensor, n: int) -> Tensor:
        """Rows of ``table [R, C]`` for every pixel of the present feature map, ``[n, C, h, w]``.

        Either way leaves each channel's pixels side by side in memory, as the feature map has them.
        """
        size = self.size
        if not table.is_cuda:
            return table.t().index_select(1, self._rows_at(embeddings, size, n)).view(-1, n, *size).transpose(0, 1)
        # In the feature map's very order, to which it is added in less time.
        key = table.shape[1], size
        if key not in self._expanded:
            rows = self._rows_at(embeddings, size, n).view(n, 1, *size)
            self._expanded[key] = rows.expand(-1, table.shape[1], -1, -1)
        return table.t().unsqueeze(2).expand(n, -1, -1, size[1]).gather(2, self._expanded[key])

    def _rows_at(self, embeddings: Embeddings, size: Size, n: int) -> Tensor:
        """For every pixel of a feature map of ``size`` its row of the blocks' tables."""
        if size not in self._rows:
            assert self.index is not None
            if self._all is None:
                self._all = self._tables.rows(embeddings, self.index).flatten()
            full = (self.index.shape[-2], self.index.shape[-1])
            self._rows.update(self._places.taken(self._all, n, full, size))
        return self._rows[size]


class _Places:
    """The pixels of a latent that blocks take at each size of their feature maps, found once a
    run.
    """

    def __init__(self) -> None:
        self._sizes: dict[tuple, list[Size]] = {}
        self._places: dict[tuple, Tensor] = {}

    def taken(self, all: Tensor, n: int, full: Size, size: Size) -> dict[Size, Tensor]:
        """What blocks of ``size``, and of every size met before, take of ``all [n·H·W]``."""
        sizes = self._sizes.setdefault((n, full), [])
        if size not in sizes:
            sizes.append(size)
            places = [cells(size, full, all.device) for size in sizes]
            rows = torch.arange(n, device=all.device)[:, None] * (full[0] * full[1])
            self._places[n, full] = torch.cat([(rows + those).flatten() for those in places])
        taken = all.index_select(0, self._places[n, full])
        return dict(zip(sizes, taken.split([n * h * w for h, w in sizes]), strict=True))
