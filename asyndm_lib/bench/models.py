"""The models that are timed: UNets of full size, and transformers. Their weights are random, since
speed does not depend on them."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

with redirect_stdout(io.StringIO()):  # ldm announces on import that xformers is not there
    from ldm.modules.attention import SpatialTransformer
    from ldm.modules.diffusionmodules.openaimodel import UNetModel
    from ldm.modules.diffusionmodules.util import timestep_embedding

from ..demo import MODEL, TRANSFORMER
from ..hosts.standalone.flow import TIMESTEPS
from ..hosts.standalone.mmdit import MMDiT
from ..models.unet import cross_attentions
from .flux import Flux

SD15 = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 320,
    "attention_resolutions": [4, 2, 1],
    "num_res_blocks": 2,
    "channel_mult": [1, 2, 4, 4],
    "num_heads": 8,
    "use_spatial_transformer": True,
    "transformer_depth": 1,
    "context_dim": 768,
    "use_checkpoint": False,
    "legacy": False,
}
SD21 = {
    **SD15,
    "num_heads": -1,
    "num_head_channels": 64,
    "use_linear_in_transformer": True,
    "context_dim": 1024,
}
SDXL = {**SD21, "attention_resolutions": [4, 2], "channel_mult": [1, 2, 4], "context_dim": 2048}
SDXL_DEPTHS = {2: 2, 4: 10}
"""How many transformer blocks a level has, by its channels as a multiple of the first level's."""

SDXL_LABEL = 2816
SD35_MEDIUM = {
    "depth": 24,
    "hidden_size": 1536,
    "context_size": 4096,
    "pooled_size": 2048,
    "qk_norm": "rms",
    "dual_blocks": 13,
    "pos_embed_max_size": 384,
}


@dataclass(frozen=True)
class Model:
    """A model and the sizes of its inputs.

    It is called with ``x [N, channels, size, size]``, timesteps ``[N]``, ``context [N, tokens,
    context]`` and ``y [N, label]``. ``label`` is None where the model takes no ``y``. ``flow``:
    whether it is a rectified flow, which is told ``timesteps · sigma``. ``guidance`` is the
    distilled one that a model is given in place of CFG.
    """

    name: str
    model: nn.Module
    size: int
    context: int
    label: int | None = None
    channels: int = 4
    tokens: int = 77
    flow: bool = False
    timesteps: float = TIMESTEPS
    guidance: float | None = None


class SdxlUNet(UNetModel):
    """SDXL's UNet, built from ldm's parts.

    ldm itself knows neither a depth for each level nor labels that are vectors.
    """

    def __init__(self, **size: int) -> None:
        """``size``: ldm's parameters where they differ from SDXL's."""
        super().__init__(**{**SDXL, **size})
        for parent in list(self.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, SpatialTransformer):
                    depth = SDXL_DEPTHS[child.in_channels // self.model_channels]
                    setattr(parent, name, _deeper(child, depth, self.num_head_channels))
        width = self.time_embed[-1].out_features
        self.label_emb = nn.Sequential(nn.Linear(SDXL_LABEL, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor, y: Tensor) -> Tensor:
        """The prediction ``[N, 4, h, w]``, as ldm's UNet makes it, with a label ``y [N, 2816]``."""
        sinusoidal = timestep_embedding(timesteps, self.model_channels).to(self.dtype)
        emb = self.time_embed(sinusoidal) + self.label_emb(y)
        h, skipped = x.to(self.dtype), []
        context = [context] * max(SDXL_DEPTHS.values())  # one for each block of a transformer
        for block in self.input_blocks:
            h = block(h, emb, context)
            skipped.append(h)
        h = self.middle_block(h, emb, context)
        for block in self.output_blocks:
            h = block(torch.cat([h, skipped.pop()], dim=1), emb, context)
        return self.out(h)


def _deeper(transformer: SpatialTransformer, depth: int, head: int) -> SpatialTransformer:
    channels, context = transformer.in_channels, transformer.transformer_blocks[0].attn2.to_k.in_features
    options = {"depth": depth, "context_dim": [context] * depth, "use_linear": True, "use_checkpoint": False}
    return SpatialTransformer(channels, channels // head, head, **options)


def embedded(device: torch.device, path: Path = MODEL) -> Model:
    """The embedded model, with its own weights."""
    from ..hosts.standalone.ldm_checkpoint import load

    unet = load(path, None, device).diffusion_model
    attention = next(attention for attention, _ in cross_attentions(unet))
    return Model("embedded", unet, 32, attention.to_k.in_features)


def embedded_transformer(device: torch.device, path: Path = TRANSFORMER) -> Model:
    """The embedded transformer, with its own weights."""
    from ..hosts.standalone.ldm_checkpoint import load

    model = load(path, None, device).diffusion_model
    context, pooled = model.context_embedder.in_features, model.y_embedder.mlp[0].in_features
    return Model("embedded transformer", model, 32, context, pooled, flow=True)


def _random(
    name: str,
    make: Callable[[], nn.Module],
    size: int,
    context: int,
    label: int | None = None,
    dtype: torch.dtype = torch.float16,
    **options: Any,
) -> Callable:
    def model(device: torch.device) -> Model:
        torch.manual_seed(0)
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            with device:
                module = make().eval()
        finally:
            torch.set_default_dtype(before)
        module.dtype = dtype
        return Model(name, module, size, context, label, **options)

    return model


def _medium(name: str, dtype: torch.dtype = torch.float16) -> Callable:
    """Stable Diffusion 3.5 medium, told CLIP's 77 tokens and T5's 256."""
    sizes = {"channels": 16, "tokens": 333, "flow": True}
    return _random(name, lambda: MMDiT(**SD35_MEDIUM).to(dtype), 128, 4096, 2048, dtype, **sizes)


def _flux(name: str, fused: bool = False) -> Callable:
    """Flux.1 dev, told T5's 512 tokens."""
    sizes = {"channels": 16, "tokens": 512, "flow": True, "timesteps": 1.0, "guidance": 3.5}
    return _random(name, lambda: Flux(fused=fused), 128, 4096, 768, torch.bfloat16, **sizes)


MODELS: dict[str, Callable[[torch.device], Model]] = {
    "embedded": embedded,
    "embedded transformer": embedded_transformer,
    "SD 1.5": _random("SD 1.5", lambda: UNetModel(**SD15), 64, 768),
    "SD 2.1": _random("SD 2.1", lambda: UNetModel(**SD21), 64, 1024),
    "SD 2.1 768": _random("SD 2.1 768", lambda: UNetModel(**SD21), 96, 1024),
    "SDXL": _random("SDXL", SdxlUNet, 128, 2048, SDXL_LABEL),
    "SD 3.5 medium": _medium("SD 3.5 medium"),
    "SD 3.5 medium bf16": _medium("SD 3.5 medium bf16", torch.bfloat16),
    "Flux.1 dev": _flux("Flux.1 dev"),
    "Flux.1 dev fused": _flux("Flux.1 dev fused", fused=True),
}
"""A model's maker by its name: ``MODELS[name](device)``. All but the embedded ones are in half
precision."""

UNETS = ("embedded", "SD 1.5", "SD 2.1", "SD 2.1 768", "SDXL")
"""Those that have a normalisation by level."""

LARGE = ("Flux.1 dev", "Flux.1 dev fused")
"""Those whose weights alone take 24 GB: they are timed where somebody asks for them."""
