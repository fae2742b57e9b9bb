"""The transformer of Anima, as Forge Neo has it.

Time enters through three modulations of each block, and the last layer's, to which a second
embedding is added that the blocks are handed. The picture attends to the text in a
cross-attention. A cell is a token of the picture; reference pictures behind it have the host's own
noise level.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from torch import Tensor

from .parts.own_pass import OwnPass
from .parts.patching import replaced
from .parts.token_modulation import Handed, Modulation, ModulationSites, Spread
from .parts.token_transformer import TokenTransformer
from .parts.token_vectors import TokenVectors

MODULATIONS = ("adaln_modulation_self_attn", "adaln_modulation_cross_attn", "adaln_modulation_mlp")


def sites(model: Any) -> ModulationSites:
    """The places of ``model`` through which the timestep reaches its picture."""
    waves, embed = model.t_embedder

    def first(sinusoids: Tensor, own: Tensor) -> Tensor:
        normed: Tensor = model.t_embedding_norm(sinusoids.to(own.dtype))
        return normed

    def second(handed: Tensor, spread: Spread) -> Any:
        return spread(handed, between=lambda sinusoids, own: embed(sinusoids.to(own.dtype))[1])

    layers = [getattr(block, name) for block in model.blocks for name in MODULATIONS]
    modulations = [Modulation(layer, between=first) for layer in (*layers, model.final_layer.adaln_modulation)]
    handed = [Handed(block, "adaln_lora_B_T_3D", second) for block in (*model.blocks, model.final_layer)]
    around = partial(_rearranging, type(model.blocks[0]).__module__)
    return ModulationSites(
        waves, modulations, OwnPass(model), given=lambda t, own: t.view(-1, 1).to(own), handed=handed, around=around
    )


def _rearranging(module: str) -> AbstractContextManager:
    """The ``rearrange`` of the host's module, also for what stands for a modulation, to which it
    gives dimensions for rows and columns.
    """
    names = sys.modules[module]
    own: Callable = vars(names)["rearrange"]

    def rearrange(x: Any, pattern: str, **sizes: int) -> Any:
        return x[:, :, None, None] if isinstance(x, TokenVectors) else own(x, pattern, **sizes)

    return replaced(names, "rearrange", rearrange)


FAMILY = TokenTransformer(
    "Anima",
    parts=("x_embedder", "t_embedder", "t_embedding_norm", "blocks", "final_layer"),
    sites=sites,
    attentions=lambda model: [block.cross_attn for block in model.blocks],
    patch="patch_spatial",
)
