"""The transformers of Lumina 2 and Z-Image (NextDiT), as Forge Neo has them.

Time enters through the ``adaLN_modulation`` of the picture's refiners, and of the layers and the
last one, which are of text and picture together. Picture and text attend to each other in one row
of tokens, the text and its pads first and the picture's pads last. A cell is a token of the
picture. Text and pads have the host's own noise level.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .parts.own_pass import OwnPass
from .parts.token_modulation import Modulation, ModulationSites
from .parts.token_transformer import TokenTransformer


def sites(model: Any) -> ModulationSites:
    """The places of ``model`` through which the timestep reaches its picture."""
    modulations = [Modulation(block.adaLN_modulation) for block in model.noise_refiner]
    modulations += [Modulation(block.adaLN_modulation, True) for block in (*model.layers, model.final_layer)]

    def turned(timesteps: Tensor, own: Tensor) -> Tensor:
        """The model's time runs the other way."""
        return ((1.0 - timesteps) * model.time_scale).to(own)

    return ModulationSites(
        model.t_embedder, modulations, OwnPass(model), given=turned, text=model.context_refiner[-1]
    )


def unknown(model: Any) -> str | None:
    """Relatives of it mix a pooled prompt into the time."""
    return None if getattr(model, "clip_text_pooled_proj", None) is None else "its time depends on the prompt"


FAMILY = TokenTransformer(
    "Lumina 2 or Z-Image",
    parts=("x_embedder", "t_embedder", "cap_embedder", "noise_refiner", "context_refiner", "layers", "final_layer"),
    sites=sites,
    attentions=lambda model: [layer.attention for layer in model.layers],
    text="context_refiner",
    unknown=unknown,
)
