"""What the families of the hosts' transformers have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import nn

from ...errors import Unsupported
from ..family import CellTimesteps, Size, TokenMaps
from .attention_sum import summed
from .function_maps import FunctionLayers, FunctionMaps, function_globals
from .own_pass import OwnPass
from .reach import check_reach
from .relative_depth import BLOCKS, at_depths
from .tabled_modulation import TabledModulation
from .token_modulation import ModulationSites, TokenModulation


@dataclass(frozen=True)
class TokenTransformer:
    """A family of transformers, known by their ``parts``.

    ``sites`` are the places through which the timestep reaches a model's picture. ``attentions``:
    of each of its blocks the module that works out the attention with the prompt. ``patch`` is the
    attribute that has the side of a cell, ``usual`` that side where there is none. ``text`` names
    the module, or the last in a list, that makes the tokens before the picture's, and ``behind``
    tells whether the prompt's come behind them. ``unknown`` says what AsynDM does not know of a
    model, if there is something.
    ``timesteps_of`` and ``token_maps_of`` are the forms of the two observers. ``blocks`` are those
    that token maps are read of, as shares of the depth.
    """

    name: str
    parts: tuple[str, ...]
    sites: Callable[[Any], ModulationSites]
    attentions: Callable[[Any], Sequence[nn.Module]]
    text: str | None = None
    behind: bool = False
    patch: str = "patch_size"
    usual: int = 2
    unknown: Callable[[Any], str | None] = lambda model: None
    timesteps_of: Callable[[ModulationSites], CellTimesteps] = TabledModulation
    token_maps_of: Callable[[FunctionLayers], TokenMaps] = FunctionMaps
    blocks: Sequence[float] = BLOCKS

    @property
    def plain(self) -> TokenTransformer:
        """The same in the forms that state the method, which the fast ones are tested against."""
        return replace(self, timesteps_of=TokenModulation, token_maps_of=partial(FunctionMaps, summed=summed))

    def matches(self, model: nn.Module) -> bool:
        """Whether ``model`` has all parts."""
        return all(hasattr(model, name) for name in self.parts)

    def check(self, model: Any) -> None:
        """Raise :class:`Unsupported` unless ``model`` is known and its parts can be reached."""
        if any(type(part).__name__.startswith("Nunchaku") for part in model.modules()):
            raise Unsupported("models quantised by Nunchaku are not supported; use another checkpoint of this model")
        unknown = self.unknown(model)
        if unknown is not None:
            raise Unsupported(f"this model ({type(model).__name__}) is no {self.name} that AsynDM knows: {unknown}")
        check_reach(model.modules())
        function_globals(self.attentions(model)[0])

    def side(self, model: Any) -> int:
        """The side of a patch."""
        side = getattr(model, self.patch, self.usual)
        return int(side if isinstance(side, int) else side[-1])

    def timesteps(self, model: Any) -> CellTimesteps:
        """A timestep for every token of the picture."""
        return self.timesteps_of(self.sites(model))

    def norms(self, model: nn.Module) -> None:
        """A transformer normalises each token by itself."""

    def token_maps(self, model: Any, latent: Size, piece: Size | None = None) -> TokenMaps:
        """What reads the token maps."""
        side, (height, width) = self.side(model), piece or latent
        size = -(-height // side), -(-width // side)
        read = at_depths(self.attentions(model), self.blocks)
        text = None if self.text is None else getattr(model, self.text)
        if isinstance(text, nn.ModuleList):
            text = text[-1]
        return self.token_maps_of(FunctionLayers(read, size, OwnPass(model), text, self.behind))
