"""The transformer of Qwen-Image and Qwen-Image-Edit, as Forge Neo has it.

Time enters through the ``img_mod`` of the blocks, and the last norm. Picture and text attend to
each other in one row of tokens, the text first and reference pictures last. A cell is a token of
the picture. Text and references have the host's own noise level.
"""

from __future__ import annotations

from typing import Any

from .parts.own_pass import OwnPass
from .parts.token_modulation import Modulation, ModulationSites
from .parts.token_transformer import TokenTransformer


def sites(model: Any) -> ModulationSites:
    """The places of ``model`` through which the timestep reaches its picture."""
    last = model.norm_out
    modulations = [Modulation(block.img_mod) for block in model.transformer_blocks]
    modulations.append(Modulation(last.linear, between=lambda emb, own: last.silu(emb)))
    return ModulationSites(model.time_text_embed, modulations, OwnPass(model))


FAMILY = TokenTransformer(
    "Qwen-Image",
    parts=("img_in", "txt_in", "time_text_embed", "transformer_blocks", "norm_out", "proj_out"),
    sites=sites,
    attentions=lambda model: [block.attn for block in model.transformer_blocks],
    text="txt_in",
)
