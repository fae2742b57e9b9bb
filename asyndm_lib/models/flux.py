"""The transformers of Flux.1 (dev, schnell, Krea) and Flux.2 Klein, as Forge and Forge Neo have
them.

Time enters through one vector, to which the distilled guidance and the pooled prompt are added.
From it come the ``img_mod`` of the double blocks, the ``modulation`` of the single ones, which is
of text and picture together, and the last layer's. Klein has one of each for all blocks. Picture
and text attend to each other in one row of tokens, the text first and reference pictures last. A
cell is a token of the picture. Text and references have the host's own noise level.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from ..errors import Unsupported
from .family import CellTimesteps, Size, TokenMaps
from .parts.attention_sum import summed
from .parts.function_maps import FunctionLayers, FunctionMaps, function_globals
from .parts.own_pass import OwnPass
from .parts.pixel_timesteps import timestep_embedding
from .parts.reach import check_reach
from .parts.relative_depth import BLOCKS, at_depths
from .parts.tabled_modulation import TabledModulation
from .parts.token_modulation import Modulation, ModulationSites, TokenModulation

PARTS = ("img_in", "time_in", "txt_in", "double_blocks", "single_blocks", "final_layer")
"""The modules by which such a transformer is known."""

TIME = 1000
"""The factor from the model's timesteps, which are from 0 to 1, to those of its sinusoids."""


@dataclass(frozen=True)
class Flux:
    """The family of Flux.1 and Flux.2.

    ``timesteps_of`` and ``token_maps_of`` are the forms of the two observers. ``blocks`` are those
    that token maps are read of, as shares of the depth.
    """

    timesteps_of: Callable[[ModulationSites], CellTimesteps] = TabledModulation
    token_maps_of: Callable[[FunctionLayers], TokenMaps] = FunctionMaps
    blocks: Sequence[float] = BLOCKS
    name = "Flux"

    def matches(self, model: nn.Module) -> bool:
        """Whether ``model`` has double and single blocks, and a time embedded by itself."""
        return all(hasattr(model, name) for name in ("double_blocks", "single_blocks", "time_in"))

    def check(self, model: Any) -> None:
        """Raise :class:`Unsupported` unless the parts of ``model`` are there and can be reached."""
        missing = ", ".join(name for name in PARTS if not hasattr(model, name))
        if missing:
            raise Unsupported(
                f"this model ({type(model).__name__}) is not a Flux that AsynDM knows: it has no {missing}"
            )
        check_reach(model.modules())
        function_globals(model.double_blocks[0])

    def side(self, model: Any) -> int:
        """The side of a patch, which Forge's class has in its code alone."""
        return int(getattr(model, "patch_size", 2))

    def timesteps(self, model: Any) -> CellTimesteps:
        """A timestep for every token of the picture."""
        return self.timesteps_of(modulation_sites(model))

    def norms(self, model: Any) -> None:
        """A transformer normalises each token by itself."""

    def token_maps(self, model: Any, latent: Size, piece: Size | None = None) -> TokenMaps:
        """What reads the token maps."""
        side, (height, width) = self.side(model), piece or latent
        size = -(-height // side), -(-width // side)
        read = at_depths([*model.double_blocks, *model.single_blocks], self.blocks)
        return self.token_maps_of(FunctionLayers(read, size, OwnPass(model), model.txt_in))


FAMILY = Flux()
PLAIN = Flux(TokenModulation, partial(FunctionMaps, summed=summed))
"""The same in the forms that state the method, which the fast ones are tested against."""


def modulation_sites(model: Any) -> ModulationSites:
    """The places of ``model`` through which the timestep reaches its picture."""
    named = (getattr(model, name, None) for name in ("guidance_in", "vector_in"))
    labels = [label for label in named if label is not None and not isinstance(label, nn.Identity)]
    if hasattr(model, "double_stream_modulation_img"):
        modulations = [Modulation(model.double_stream_modulation_img), Modulation(model.single_stream_modulation, True)]
    else:
        modulations = [Modulation(block.img_mod) for block in model.double_blocks]
        modulations += [Modulation(block.modulation, True) for block in model.single_blocks]
    modulations.append(Modulation(model.final_layer.adaLN_modulation))
    return ModulationSites(model.time_in, modulations, OwnPass(model), labels, embedded, text=model.txt_in)


def embedded(timesteps: Tensor, own: Tensor) -> Tensor:
    """The sinusoids of ``timesteps``, which the model makes outside of its modules."""
    return timestep_embedding(TIME * timesteps, own.shape[-1]).to(own.dtype)
