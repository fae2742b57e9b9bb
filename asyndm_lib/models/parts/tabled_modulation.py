"""A timestep for every token of a transformer's picture, with little traffic: the accelerator of
:mod:`token_modulation`.

What costs time here is memory: a shift, scale or gate of all tokens is as large as the tokens.
Products and sums stay apart, as the model has them: on a GPU they take no longer with a vector for
each token than with one for all, which PyTorch's kernels spread element by element.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .token_modulation import Call, ModulationSites, TokenModulation
from .token_vectors import joined


class TabledModulation(TokenModulation):
    """The fast :class:`family.CellTimesteps` of a transformer.

    Every modulation's layers run once, on all levels and rows; rows that differ by their level
    alone have the lagging ones in common.
    """

    def __init__(self, sites: ModulationSites):
        super().__init__(sites)
        self._made: tuple[Tensor, Tensor, Tensor] | None = None

    def _lagging(self, embed: Callable[[Tensor], Tensor], timesteps: Tensor, n: int) -> Tensor:
        return embed(timesteps)[:, None]

    def _table(
        self, call: Call, forward: Callable[[Tensor], Any], emb: Tensor, own: Callable[[Tensor], Tensor]
    ) -> Any:
        lagging = call.lagging
        assert lagging is not None
        if call.alike:  # a row that is at one level keeps the model's own bits
            return joined([forward(emb), forward(own(lagging.flatten(0, 1)))])
        if self._made is None or self._made[0] is not emb or self._made[1] is not lagging:
            self._made = emb, lagging, torch.cat([emb, own(lagging.flatten(0, 1))])
        return forward(self._made[2])

    def detach(self) -> None:
        """Take the hooks off the model."""
        super().detach()
        self._made = None
