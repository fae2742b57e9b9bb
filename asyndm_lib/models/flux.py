"""The transformers of Flux.1 (dev, schnell, Krea) and Flux.2 Klein, as Forge and Forge Neo have
them.

Time enters through one vector, to which the distilled guidance and the pooled prompt are added.
From it come the ``img_mod`` of the double blocks, the ``modulation`` of the single ones, which is
of text and picture together, and the last layer's. Klein has one of each for all blocks. Picture
and text attend to each other in one row of tokens, the text first and reference pictures last. A
cell is a token of the picture. Text and references have the host's own noise level.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from .parts.own_pass import OwnPass
from .parts.sinusoids import sinusoids
from .parts.token_modulation import Modulation, ModulationSites
from .parts.token_transformer import TokenTransformer


def sites(model: Any) -> ModulationSites:
    """The places of ``model`` through which the timestep reaches its picture."""
    named = (getattr(model, name, None) for name in ("guidance_in", "vector_in"))
    labels = [label for label in named if label is not None and not isinstance(label, nn.Identity)]
    if hasattr(model, "double_stream_modulation_img"):
        modulations = [Modulation(model.double_stream_modulation_img), Modulation(model.single_stream_modulation, True)]
    else:
        modulations = [Modulation(block.img_mod) for block in model.double_blocks]
        modulations += [Modulation(block.modulation, True) for block in model.single_blocks]
    modulations.append(Modulation(model.final_layer.adaLN_modulation))
    return ModulationSites(model.time_in, modulations, OwnPass(model), labels, sinusoids, text=model.txt_in)


FAMILY = TokenTransformer(
    "Flux",
    parts=("img_in", "time_in", "txt_in", "double_blocks", "single_blocks", "final_layer"),
    sites=sites,
    attentions=lambda model: [*model.double_blocks, *model.single_blocks],
    text="txt_in",
)
