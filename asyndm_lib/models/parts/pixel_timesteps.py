"""A timestep for every pixel of a UNet, in its plain form (docs/METHOD.md, section 3).

A UNet sees the timestep only through the ``emb_layers`` of its ResBlocks, whose output ``[N, C]``
it adds to a feature map. Here that output becomes ``[N, C, h, w]``: each block's linear layer runs
on the DISTINCT timesteps, and a gather by index spreads the result over the pixels.
:class:`tabled_timesteps.TabledTimesteps` does the same with fewer calls.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Set
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .own_pass import OwnPass
from .patching import replaced, watched
from .resampling import cells


@dataclass(frozen=True)
class TimeSites:
    """The places of a UNet through which the timestep enters.

    ``time_embed`` makes embeddings ``[L, E]`` of sinusoids. ``label_emb``, where there is one,
    makes what is added to each row's embedding. Each of ``blocks`` has ``emb_layers`` for what it
    adds, and ``in_layers`` before that.
    """

    time_embed: nn.Module
    label_emb: nn.Module | None
    blocks: list[Any]
    own_pass: OwnPass


def timestep_embedding(timesteps: Tensor, channels: int, max_period: float = 10000) -> Tensor:
    """Sinusoids ``[L, channels]`` of ``timesteps [L]``, cosines first (Ho et al. 2020, as in ldm).
    """
    half = channels // 2
    steps = torch.arange(half, dtype=torch.float32, device=timesteps.device)
    angles = timesteps.float()[:, None] * torch.exp(-math.log(max_period) * steps / half)[None]
    embedding = torch.cat([angles.cos(), angles.sin()], dim=-1)
    return nn.functional.pad(embedding, (0, channels % 2))


class PixelTimesteps:
    """The plain :class:`family.CellTimesteps` of a UNet.

    Pixels on the synchronous clock take what the UNet's own layers give for the batch's rows, so
    that a map without lagging pixels changes no bit.
    """

    problems: Set[str] = frozenset()

    def __init__(self, sites: TimeSites):
        self._sites, self._attached = sites, ExitStack()
        self._call: _Call | None = None

    def attach(self) -> None:
        """Put the hooks on the UNet."""
        sites, attached = self._sites, self._attached
        attached.callback(sites.own_pass.detach)
        sites.own_pass.attach()
        attached.callback(sites.time_embed.register_forward_hook(self._after_time_embed).remove)
        if sites.label_emb is not None:
            attached.callback(sites.label_emb.register_forward_hook(self._after_label_emb).remove)
        for block in sites.blocks:
            layers = block.emb_layers
            attached.enter_context(watched(block.in_layers[-1], self._after_in_layers))
            attached.enter_context(replaced(layers, "forward", partial(self._embed, layers.forward)))

    def detach(self) -> None:
        """Take the hooks off the UNet."""
        self._attached.close()
        self._call = None

    @contextmanager
    def use(self, timesteps: Tensor, index: Tensor, coming: Iterable[Tensor] | None = ()) -> Iterator[None]:
        """Pixel ``p`` of row ``n`` is at ``timesteps[index[n, 0, p]]`` in one call of the UNet."""
        self._call = _Call(timesteps, index)
        try:
            yield
        finally:
            self._call = None

    def _after_time_embed(self, module: nn.Module, args: tuple, output: Tensor) -> None:
        call = self._call
        if call is None or call.lagging is not None or len(call.timesteps) < 2:
            return
        call.lagging = output  # keeps the call below from coming back here
        sinusoids = timestep_embedding(call.timesteps[1:], args[0].shape[1])
        call.lagging = module(sinusoids.to(args[0].dtype))

    def _after_label_emb(self, module: nn.Module, args: tuple, output: Tensor) -> None:
        call = self._call
        if call is not None and call.lagging is not None:
            call.lagging = (call.lagging[:, None] + output).flatten(0, 1)
            call.labelled = True

    def _after_in_layers(self, output: Tensor) -> None:
        if self._call is not None:
            self._call.size = (output.shape[-2], output.shape[-1])

    def _embed(self, forward: Callable[[Tensor], Tensor], emb: Tensor) -> Tensor:
        """What a block adds for ``emb [N, E]``: ``[N, C, h, w]``, or ``[N, C]`` as it is."""
        call, own = self._call, forward(emb)
        if call is None or call.lagging is None or not self._sites.own_pass.here:
            return own
        table = torch.cat([own, forward(call.lagging)])
        rows = call.rows(len(emb))
        return table.t().index_select(1, rows).view(-1, len(emb), *call.size).transpose(0, 1)


class _Call:
    """One call of the UNet.

    ``lagging`` is the embedding of every timestep but the first, ``[L - 1, E]``; with labels one
    for each row of the batch, ``[(L - 1)·N, E]``. ``size`` is the present feature map's.
    """

    def __init__(self, timesteps: Tensor, index: Tensor):
        self.timesteps, self.index = timesteps, index
        self.lagging: Tensor | None = None
        self.labelled = False
        self.size: tuple[int, int] = (index.shape[-2], index.shape[-1])

    def rows(self, n: int) -> Tensor:
        """For every pixel of a feature map its row of a block's table, int64 ``[n·h·w]``."""
        taken = cells(self.size, self.index.shape[-2:], self.index.device)
        level = self.index.flatten(1).index_select(1, taken)
        own = torch.arange(n, device=level.device)[:, None]
        lagging = own + level * n if self.labelled else level + (n - 1)
        return torch.where(level == 0, own, lagging).flatten()
