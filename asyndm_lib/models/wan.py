"""The transformer of Wan 2.1 and 2.2 in a picture of one frame, as Forge Neo has it.

Time enters through one projection for all blocks, and the head, which is handed the embedding. The
picture attends to the text in a cross-attention. A cell is a token of the picture.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .parts.own_pass import OwnPass
from .parts.token_modulation import Handed, Modulation, ModulationSites
from .parts.token_transformer import TokenTransformer


def sites(model: Any) -> ModulationSites:
    """The places of ``model`` through which the timestep reaches its picture."""
    head = Handed(model.head, "e", lambda emb, spread: spread(emb))
    projection = Modulation(model.time_projection)
    return ModulationSites(model.time_embedding, [projection], OwnPass(model), given=sinusoids, handed=[head])


def sinusoids(timesteps: Tensor, own: Tensor) -> Tensor:
    """Those of ``timesteps [k]``, which the model makes outside of its modules, to its bits."""
    half = own.shape[-1] // 2
    steps = torch.arange(half, dtype=torch.float32, device=timesteps.device)
    angles = torch.outer(timesteps.float(), torch.pow(10000, -steps / half))
    return torch.cat([angles.cos(), angles.sin()], dim=1).to(own.dtype)


FAMILY = TokenTransformer(
    "Wan",
    parts=("patch_embedding", "text_embedding", "time_embedding", "time_projection", "blocks", "head"),
    sites=sites,
    attentions=lambda model: [block.cross_attn for block in model.blocks],
)
