"""UNets of ldm's form: Stable Diffusion 1, 2 and XL under the names that ldm, sgm and Forge share.

Time enters through the ``emb_layers`` of the ResBlocks, and token maps are those of the text
cross-attentions ``attn2``. A cell is one latent pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..errors import Unsupported
from .family import CellNorms, CellTimesteps, Size, TokenMaps
from .parts import token_maps
from .parts.batched_token_maps import BatchedTokenMaps
from .parts.level_norms import LevelNorms
from .parts.mixed_token_maps import MixedTokenMaps, has_own_forward
from .parts.own_pass import OwnPass
from .parts.pixel_timesteps import PixelTimesteps, TimeSites
from .parts.reach import check_reach
from .parts.tabled_timesteps import TabledTimesteps
from .parts.token_maps import MapLayers

PARTS = ("time_embed", "input_blocks", "middle_block", "output_blocks")
"""The modules by which such a UNet is known."""

COARSE, FINE = 4, 2
"""Token maps are read at 1/4 of the latent's height and width, and at 1/2 for small latents."""

SMALL = 48
"""Latents whose shorter side has fewer pixels are small: their 1/4 would be too coarse."""


@dataclass(frozen=True)
class UNet:
    """The family of the UNets.

    ``timesteps_of`` and ``token_maps_of`` are the forms of the two observers, of which there is a
    plain one, that states the method, and a fast one. Attentions that another extension works out
    in its own way are read by :class:`parts.mixed_token_maps.MixedTokenMaps`.
    """

    timesteps_of: Callable[[TimeSites], CellTimesteps] = TabledTimesteps
    token_maps_of: Callable[[MapLayers], TokenMaps] = BatchedTokenMaps
    name = "Stable Diffusion 1, 2 or XL"

    def matches(self, model: nn.Module) -> bool:
        """Whether the timestep of ``model`` is embedded as a UNet's."""
        return hasattr(model, PARTS[0])

    def check(self, model: nn.Module) -> None:
        """Raise :class:`Unsupported` unless the parts of ``model`` are there and can be reached."""
        missing = ", ".join(name for name in PARTS if not hasattr(model, name))
        if missing:
            raise Unsupported(
                f"this model ({type(model).__name__}) is not a UNet that AsynDM knows: it has no {missing}"
            )
        check_reach(_on_the_way(model))

    def side(self, model: nn.Module) -> int:
        """One pixel."""
        return 1

    def timesteps(self, model: nn.Module) -> CellTimesteps:
        """A timestep for every pixel of a batch of ``model``."""
        return self.timesteps_of(time_sites(model))

    def norms(self, model: nn.Module) -> CellNorms:
        """The GroupNorms of :func:`group_norms`, by level."""
        return LevelNorms(group_norms(model), own_pass(model))

    def token_maps(self, model: nn.Module, latent: Size, piece: Size | None = None) -> TokenMaps:
        """What reads the token maps; raises :class:`Unsupported` without a text cross-attention."""
        layers = token_map_layers(model, *latent, piece)
        others = any(has_own_forward(attention) for attention in layers.attentions)
        return MixedTokenMaps(layers) if others else self.token_maps_of(layers)


FAMILY = UNet()
PLAIN = UNet(PixelTimesteps, token_maps.TokenMaps)
"""The same in the forms that state the method, which the fast ones are tested against."""


def own_pass(unet: Any) -> OwnPass:
    """Tells the caller's own pass through ``unet`` from an extension's."""
    return OwnPass(unet, unet.input_blocks[0])


def time_sites(unet: Any) -> TimeSites:
    """The places of ``unet`` through which the timestep enters."""
    label_emb = getattr(unet, "label_emb", None)
    if not isinstance(label_emb, nn.Module):
        label_emb = None
    return TimeSites(unet.time_embed, label_emb, res_blocks(unet), own_pass(unet))


def group_norms(unet: Any) -> list[nn.GroupNorm]:
    """The GroupNorms of the two finest resolutions of the way up, but for the first of every
    ResBlock, and the exit's.

    Measured by the context curve (docs/EVALUATION.md): these by level do nearly as much as all, of
    whose numbers they see 34 to 42 %.
    """
    blocks = list(unet.output_blocks)
    enlarging = [number for number, block in enumerate(blocks) if "Upsample" in _kinds(_parts(block))]
    first = enlarging[-2] + 1 if len(enlarging) > 1 else 0
    parts = [*blocks[first:], getattr(unet, "out", nn.Identity())]
    inner = [part.in_layers.modules() for block in blocks[first:] for part in _parts(block) if _is_res_block(part)]
    left_out = {module for modules in inner for module in modules}
    modules = [module for part in parts for module in part.modules() if module not in left_out]
    return [module for module in modules if isinstance(module, nn.GroupNorm)]


def res_blocks(unet: Any) -> list[nn.Module]:
    """The blocks that the timestep's embedding enters, through their ``emb_layers``."""
    return [module for module in _parts(unet) if _is_res_block(module)]


def token_map_layers(unet: Any, height: int, width: int, piece: Size | None = None) -> MapLayers:
    """The layers to read for a latent of ``height`` × ``width``, or for a ``piece`` of it.

    Raises :class:`Unsupported` if there is no text cross-attention.
    """
    layers: dict[int, list[tuple[Any, Any]]] = {}
    for attention, factor, transformer in _cross_attentions(unet):
        layers.setdefault(factor, []).append((attention, transformer))
    if not layers:
        raise Unsupported(f"this model ({type(unet).__name__}) has no cross-attention to the prompt")
    wanted = FINE if min(height, width) < SMALL else COARSE
    factor = min(layers, key=lambda f: (abs(f - wanted), f))
    transformers = dict.fromkeys(around for _, around in layers[factor] if around is not None)
    attentions = [attention for attention, _ in layers[factor]]
    height, width = piece or (height, width)
    size = halved(height, factor), halved(width, factor)
    return MapLayers(attentions, list(transformers), size, own_pass(unet))


def cross_attentions(unet: Any) -> Iterator[tuple[Any, int]]:
    """Every ``attn2``, with the factor by which its map is smaller than the latent."""
    yield from ((attention, factor) for attention, factor, _ in _cross_attentions(unet))


def _cross_attentions(unet: Any) -> Iterator[tuple[Any, int, Any]]:
    """Every ``attn2`` with its factor, and the transformer that it is in, if it is in one."""
    factor = 1
    for block in [*unet.input_blocks, unet.middle_block, *unet.output_blocks]:
        modules = _parts(block)
        for module in modules:
            transformer: Any = module if "transformer_blocks" in module._modules else None
            holders = (module,) if transformer is None else transformer.transformer_blocks._modules.values()
            for part in holders:
                attention = part._modules.get("attn2")
                if attention is not None and "to_k" in attention._modules:
                    yield attention, factor, transformer
        kinds = _kinds(modules)
        if "Downsample" in kinds:
            factor *= 2
        elif "Upsample" in kinds:
            factor //= 2


def _on_the_way(unet: Any) -> Iterator[nn.Module]:
    """The modules whose calls are watched, and those around them."""
    for module in _parts(unet):
        yield module
        yield from _deeper(module)


def _deeper(module: nn.Module) -> Iterator[nn.Module]:
    """What :func:`_parts` leaves out."""
    if _is_res_block(module):
        for name in ("in_layers", "emb_layers"):
            yield from getattr(module, name).children()
    for block in getattr(module, "transformer_blocks", ()):
        yield block
        attention = block._modules.get("attn2")
        if attention is not None:
            yield attention
            yield from (attention._modules[name] for name in ("to_q", "to_k") if name in attention._modules)


def _parts(module: nn.Module) -> list[nn.Module]:
    """``module`` and those in it, but not what ResBlocks' parts and transformers are made of.

    A run looks for its places once; to visit all of SDXL's modules would take longer than a step.
    """
    found, inner = [module], module._modules
    if _is_res_block(module):
        found.extend(child for child in inner.values() if child is not None)
    elif "transformer_blocks" not in inner:
        for child in inner.values():
            if child is not None:
                found.extend(_parts(child) if child._modules else (child,))
    return found


def _kinds(modules: Iterable[nn.Module]) -> set[str]:
    return {type(module).__name__ for module in modules}


def _is_res_block(module: nn.Module) -> bool:
    # ``hasattr`` takes long to find that something is none of a module's own.
    return "emb_layers" in module._modules and "in_layers" in module._modules


def halved(size: int, factor: int) -> int:
    """A side after ``log2(factor)`` halvings, each rounding up as the UNet's strided convolutions
    do.
    """
    return -(-size // factor)
