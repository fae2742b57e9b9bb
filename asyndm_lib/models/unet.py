"""Where the parts of an ldm-like UNet stand: the names that ldm, sgm and Forge share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from ..errors import Unsupported

COARSE, FINE = 4, 2
"""Token maps are read at this part of the latent's height and width: 1/4, and 1/2 for small latents."""

SMALL = 48
"""Latents whose shorter side is under this many pixels are small: their 1/4 would be too coarse."""


def check(unet: nn.Module) -> None:
    """Raise :class:`Unsupported` unless ``unet`` has the parts that the method works on."""
    names = ("time_embed", "input_blocks", "middle_block", "output_blocks")
    missing = ", ".join(name for name in names if not hasattr(unet, name))
    if missing:
        raise Unsupported(f"this model ({type(unet).__name__}) is not a UNet that AsynDM knows: it has no {missing}")
    compiled = getattr(unet, "_compiled_call_impl", None) or hasattr(unet, "_orig_mod")
    if compiled or hasattr(unet.forward, "_torchdynamo_orig_callable"):
        # What torch.compile has traced, and a CUDA graph has recorded, runs no hooks of its layers.
        raise Unsupported("the model is compiled (torch.compile), and its layers cannot be reached; switch that off")


def res_blocks(unet: nn.Module) -> list[nn.Module]:
    """The blocks that the timestep embedding enters, through their ``emb_layers``."""
    return [module for module in _parts(unet) if _is_res_block(module)]


def cross_attentions(unet: nn.Module) -> Iterator[tuple[nn.Module, int]]:
    """Every text cross-attention (``attn2``) with the factor by which its map is smaller than the latent."""
    yield from ((attention, factor) for attention, factor, _ in _cross_attentions(unet))


def _cross_attentions(unet: nn.Module) -> Iterator[tuple[nn.Module, int, nn.Module | None]]:
    """Those of :func:`cross_attentions`, each also with its transformer if it is in one."""
    factor = 1
    for block in [*unet.input_blocks, unet.middle_block, *unet.output_blocks]:
        modules = _parts(block)
        for module in modules:
            transformer = module if "transformer_blocks" in module._modules else None
            for part in (module,) if transformer is None else transformer.transformer_blocks._modules.values():
                attention = part._modules.get("attn2")
                if attention is not None and "to_k" in attention._modules:
                    yield attention, factor, transformer
        kinds = {type(module).__name__ for module in modules}
        if "Downsample" in kinds:
            factor *= 2
        elif "Upsample" in kinds:
            factor //= 2


@dataclass(frozen=True)
class MapLayers:
    """Where the method reads its token maps.

    ``attentions``: the cross-attentions. ``transformers``: the modules that they are in, whose input is the feature
    map that they read as a row of pixels. ``size``: height and width of the maps.
    """

    attentions: list[nn.Module]
    transformers: list[nn.Module]
    size: tuple[int, int]


def token_map_layers(unet: nn.Module, height: int, width: int) -> MapLayers:
    """For a latent of ``height`` × ``width``. Raises :class:`Unsupported` if there is no text cross-attention."""
    layers: dict[int, list[tuple[nn.Module, nn.Module | None]]] = {}
    for attention, factor, transformer in _cross_attentions(unet):
        layers.setdefault(factor, []).append((attention, transformer))
    if not layers:
        raise Unsupported(f"this model ({type(unet).__name__}) has no cross-attention to the prompt")
    wanted = FINE if min(height, width) < SMALL else COARSE
    factor = min(layers, key=lambda f: (abs(f - wanted), f))
    transformers = dict.fromkeys(transformer for _, transformer in layers[factor] if transformer is not None)
    size = halved(height, factor), halved(width, factor)
    return MapLayers([attention for attention, _ in layers[factor]], list(transformers), size)


def _parts(module: nn.Module) -> list[nn.Module]:
    """``module`` and those in it, but not what ResBlocks' parts and transformers are made of.

    A run looks for its places once; to visit all of the thousands of modules of SDXL would take longer than a step.
    """
    found, inner = [module], module._modules
    if _is_res_block(module):
        found.extend(child for child in inner.values() if child is not None)
    elif "transformer_blocks" not in inner:
        for child in inner.values():
            if child is not None:
                found.extend(_parts(child) if child._modules else (child,))
    return found


def _is_res_block(module: nn.Module) -> bool:
    # ``hasattr`` takes long to find that something is none of a module's own.
    return "emb_layers" in module._modules and "in_layers" in module._modules


def scale(attention: nn.Module) -> float:
    """The factor of an attention's scores. Forge's has only the size of a head, of which it is the usual one."""
    return attention.scale if hasattr(attention, "scale") else attention.dim_head**-0.5


def halved(size: int, factor: int) -> int:
    """A side after ``log2(factor)`` halvings, each rounding up, as the UNet's strided convolutions do."""
    return -(-size // factor)
