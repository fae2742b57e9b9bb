"""The transformer of Krea 2, as Forge Neo has it.

Time enters through one projection for all blocks, and the last layer's modulation. Picture and text
attend to each other in one row of tokens, the text first. A cell is a token of the picture. The
text has the host's own noise level.
"""

from __future__ import annotations

from typing import Any

from .parts.own_pass import OwnPass
from .parts.sinusoids import sinusoids
from .parts.token_modulation import Modulation, ModulationSites
from .parts.token_transformer import TokenTransformer


def sites(model: Any) -> ModulationSites:
    """The places of ``model`` through which the timestep reaches its picture."""
    modulations = [Modulation(model.tproj, True), Modulation(model.last.modulation, True)]
    own_pass = OwnPass(model)
    return ModulationSites(model.tmlp, modulations, own_pass, given=sinusoids, text=model.txtmlp)


FAMILY = TokenTransformer(
    "Krea 2",
    parts=("first", "blocks", "tmlp", "tproj", "txtfusion", "txtmlp", "last"),
    sites=sites,
    attentions=lambda model: [block.attn for block in model.blocks],
    text="txtmlp",
    patch="patch",
)
