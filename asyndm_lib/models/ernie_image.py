"""The transformer of Ernie-Image, as Forge Neo has it.

Time enters through one modulation for all layers, and the last norm. Picture and text attend to
each other in one row of tokens, the picture first. A cell is a token of the picture, which is one
latent pixel. The text has the host's own noise level.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .parts.own_pass import OwnPass
from .parts.token_modulation import Modulation, ModulationSites
from .parts.token_transformer import TokenTransformer


def sites(model: Any) -> ModulationSites:
    """The places of ``model`` through which the timestep reaches its picture."""
    modulations = [Modulation(model.adaLN_modulation), Modulation(model.final_norm.linear)]

    def sinusoids(timesteps: Tensor, own: Tensor) -> Tensor:
        waves: Tensor = model.time_proj(timesteps)
        return waves.to(own.dtype)

    return ModulationSites(model.time_embedding, modulations, OwnPass(model), given=sinusoids)


FAMILY = TokenTransformer(
    "Ernie-Image",
    parts=("x_embedder", "time_proj", "time_embedding", "adaLN_modulation", "layers", "final_norm", "final_linear"),
    sites=sites,
    attentions=lambda model: [layer.self_attention for layer in model.layers],
    behind=True,
)
