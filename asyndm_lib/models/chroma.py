"""The transformer of Chroma, as Forge and Forge Neo have it.

Time enters through ``distilled_guidance_layer``, which makes all modulations ``[n, count, D]`` at
once: three of each single block, then six of the picture and six of the text of each double block,
and the last two. The blocks are handed their own. Picture and text attend to each other in one row
of tokens, the text first. A cell is a token of the picture. The text has the host's own noise
level.
"""

from __future__ import annotations

from functools import partial
from itertools import count
from typing import Any

import torch
from torch import Tensor

from .parts.own_pass import OwnPass
from .parts.sinusoids import sinusoids
from .parts.token_modulation import Handed, ModulationSites, Spread
from .parts.token_transformer import TokenTransformer
from .parts.token_vectors import changed

SINUSOIDS = 16
"""How many of the numbers that the layer is given are the time's."""


def sites(model: Any) -> ModulationSites:
    """The places of ``model`` through which the timestep reaches its picture."""
    singles, name = len(model.single_blocks), "vec" if hasattr(model, "params") else "mod"
    handed = [
        Handed(block, name, partial(_of_double, 3 * singles + 6 * number))
        for number, block in enumerate(model.double_blocks)
    ]
    handed += [Handed(block, name, partial(_of, 3 * number, True)) for number, block in enumerate(model.single_blocks)]
    handed.append(Handed(model.final_layer, name, partial(_of, -2, False)))
    layer = model.distilled_guidance_layer
    return ModulationSites(layer, [], OwnPass(model), given=given, text=model.txt_in, handed=handed)


def given(timesteps: Tensor, own: Tensor) -> Tensor:
    """What the layer is given for ``timesteps [k]``: guidance and numbers are alike in all rows."""
    waves = sinusoids(timesteps, own[:, 0, :SINUSOIDS])
    rest = own[:1, :, SINUSOIDS:].expand(len(timesteps), -1, -1)
    return torch.cat([waves[:, None].expand(-1, rest.shape[1], -1), rest], dim=-1)


def _of_double(first: int, handed: Any, spread: Spread) -> tuple[Any, Any]:
    """The text's modulations stay."""
    picture, text = handed
    return _of(first, False, picture, spread), text


def _of(first: int, joint: bool, handed: Any, spread: Spread) -> Any:
    """What stands for the modulations in ``handed``, which are those of the layer's output from the
    ``first`` on.
    """
    numbers = count(first)

    def stand_in(own: Tensor) -> Any:
        number = next(numbers)
        return spread(own, joint, lambda made, own: made[:, number])

    return changed(handed, stand_in)


FAMILY = TokenTransformer(
    "Chroma",
    parts=("img_in", "txt_in", "distilled_guidance_layer", "double_blocks", "single_blocks", "final_layer"),
    sites=sites,
    attentions=lambda model: [*model.double_blocks, *model.single_blocks],
    text="txt_in",
)
