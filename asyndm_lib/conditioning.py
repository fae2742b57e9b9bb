"""Per-pixel timestep embedding of an unchanged UNet (METHOD, section 3).

The UNet sees the timestep only through ``ResBlock.emb_layers``, whose output ``[N, C]`` it adds to a
feature map. A hook turns that into ``[N, C, h, w]``: each block's linear layer runs once on a table
of the DISTINCT timesteps, and a gather by index spreads it. Pixels on the synchronous clock take the
UNet's own output, so that a map without lagging pixels changes no bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from . import unet as parts
from .nearest import nearest
from .passes import Passes


def timestep_embedding(timesteps: Tensor, channels: int, max_period: float = 10000) -> Tensor:
    """Sinusoidal embedding ``[L, channels]`` of ``timesteps`` ``[L]``, cosines first (Ho et al. 2020, as in ldm)."""
    half = channels // 2
    steps = torch.arange(half, dtype=torch.float32, device=timesteps.device)
    angles = timesteps.float()[:, None] * torch.exp(-math.log(max_period) * steps / half)[None]
    embedding = torch.cat([angles.cos(), angles.sin()], dim=-1)
    return nn.functional.pad(embedding, (0, channels % 2))


class PixelTimesteps:
    """Gives the pixels of a UNet's batch their own timesteps while :meth:`use` is active.

    Hooks: one on ``time_embed``, one on ``label_emb`` where there is one, two on every ResBlock, and those
    of :class:`Passes`. Nothing is stored on the modules; :meth:`detach` removes every hook.
    """

    def __init__(self, unet: nn.Module):
        parts.check(unet)
        self._unet = unet
        self._passes = Passes(unet)
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._call: _Call | None = None
        self._known_cells: dict[tuple, Tensor] = {}

    def attach(self) -> None:
        unet = self._unet
        self._passes.attach()
        self._handles.append(unet.time_embed.register_forward_hook(self._after_time_embed))
        if isinstance(getattr(unet, "label_emb", None), nn.Module):
            self._handles.append(unet.label_emb.register_forward_hook(self._after_label_emb))
        for block in parts.res_blocks(unet):
            self._handles.append(block.in_layers[-1].register_forward_hook(self._after_in_layers))
            self._handles.append(block.emb_layers.register_forward_hook(self._after_emb_layers))

    def detach(self) -> None:
        self._passes.detach()
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._call = None

    @contextmanager
    def use(self, timesteps: Tensor, index: Tensor) -> Iterator[None]:
        """For one call of the UNet: row ``n``, pixel ``p`` is at ``timesteps[index[n, 0, p]]``.

        ``timesteps``: ``[L]``, the first being the one that the UNet itself is called with.
        ``index``: int64 ``[N, 1, H, W]``.
        """
        self._call = _Call(timesteps, index, self._cells)
        try:
            yield
        finally:
            self._call = None

    def _cells(self, full: tuple[int, int], size: tuple[int, int], device: torch.device) -> Tensor:
        """The pixels of a latent of size ``full`` that a block of ``size`` takes, int64 ``[h·w]``; made once a run."""
        if (full, size) not in self._known_cells:
            rows, columns = nearest(size[0], full[0]), nearest(size[1], full[1])
            self._known_cells[full, size] = (rows[:, None] * full[1] + columns).flatten().to(device)
        return self._known_cells[full, size]

    def _after_time_embed(self, module: nn.Module, args: tuple, output: Tensor) -> None:
        call = self._call
        if call is None or call.time is not None or len(call.timesteps) < 2:
            return
        # The UNet's own embedding serves the first level; ours the others, in the same precision.
        call.time = output  # also keeps the call below from coming back here
        embedding = timestep_embedding(call.timesteps[1:], args[0].shape[1])
        call.levels = module(embedding.to(args[0].dtype))

    def _after_label_emb(self, module: nn.Module, args: tuple, output: Tensor) -> None:
        if self._call is not None:
            self._call.label = output

    def _after_in_layers(self, module: nn.Module, args: tuple, output: Tensor) -> None:
        if self._call is not None:
            self._call.size = output.shape[-2:]

    def _after_emb_layers(self, module: nn.Module, args: tuple, output: Tensor) -> Tensor | None:
        call = self._call
        if call is None or call.levels is None or call.busy or not self._passes.own:
            return None
        call.busy = True
        # Every block begins with the same activation of the same table: it is worth making once.
        usual = len(module) == 2 and isinstance(module[0], nn.SiLU)
        lagging = module[1](call.activated(module[0])) if usual else module(call.table())
        call.busy = False
        return call.spread(output, lagging)


class _Call:
    """One call of the UNet: what is known of it so far."""

    def __init__(self, timesteps: Tensor, index: Tensor, cells: Callable[..., Tensor]):
        self.timesteps, self.index, self._cells = timesteps, index, cells
        self.time: Tensor | None = None
        self.levels: Tensor | None = None
        self.label: Tensor | None = None
        self.size = index.shape[-2:]
        self.busy = False
        self._table: Tensor | None = None
        self._activated: Tensor | None = None
        self._all: Tensor | None = None
        self._rows: dict[tuple[int, int], Tensor] = {}

    def table(self) -> Tensor:
        """The whole embedding of the lagging levels: time, and per row what the model adds to it (SDXL's label)."""
        if self._table is None:
            self._table = self.levels
            if self.label is not None:
                self._table = (self.levels[None] + self.label[:, None]).flatten(0, 1)
        return self._table

    def activated(self, activation: nn.Module) -> Tensor:
        """``activation`` of :meth:`table`."""
        if self._activated is None:
            self._activated = activation(self.table())
        return self._activated

    def rows(self) -> Tensor:
        """For every pixel of a block of the present size the column of its table, int64 ``[N·h·w]``."""
        size = tuple(self.size)
        if size not in self._rows:
            if self._all is None:
                level = self.index[:, 0]
                own = torch.arange(len(level), device=level.device)[:, None, None]
                others = len(level) - 1 + (own * len(self.levels) if self.label is not None else 0)
                self._all = torch.where(level == 0, own, others + level).flatten(1)
            cells = self._cells(tuple(self.index.shape[-2:]), size, self.index.device)
            self._rows[size] = self._all.index_select(1, cells).flatten()
        return self._rows[size]

    def spread(self, own: Tensor, lagging: Tensor) -> Tensor:
        """The rows' own output ``[N, C]`` and the lagging levels' ``[rows, C]``, gathered to ``[N, C, h, w]``."""
        n, (h, w) = len(self.index), self.size
        # Gathering columns leaves each channel's pixels side by side in memory, as the feature map has them.
        table = torch.cat([own.t(), lagging.t()], dim=1)
        return table.index_select(1, self.rows()).view(-1, n, h, w).transpose(0, 1)
