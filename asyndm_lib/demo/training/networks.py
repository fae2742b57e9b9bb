"""The model's parts in Stable Diffusion 1 format: ldm's UNet and autoencoder, and a CLIP text
model.

For training there are forward passes that return the cross-attention maps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
import yaml
from torch import nn

from ...errors import AsynDMError
from .vocabulary import CONTEXT_LENGTH

TIMESTEPS = 1000


def alphas_cumprod(linear_start: float = 0.00085, linear_end: float = 0.0120) -> torch.Tensor:
    """Stable Diffusion's noise schedule: the cumulative product of alpha at timesteps 0 to 999."""
    betas = torch.linspace(linear_start**0.5, linear_end**0.5, TIMESTEPS, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, 0).float()


def read_config(path: Path) -> dict:
    """The part ``model.params`` of an ldm YAML file. Raises :class:`AsynDMError` for any other."""
    try:
        return yaml.safe_load(Path(path).read_text(encoding="utf-8"))["model"]["params"]
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise AsynDMError(f"{path} is no configuration of a model: it holds no model.params") from error


class Autoencoder(nn.Module):
    """ldm's ``AutoencoderKL`` with the same parameter names, without its training frame."""

    def __init__(self, params: dict):
        super().__init__()
        from ldm.modules.diffusionmodules.model import Decoder, Encoder

        dd, channels = params["ddconfig"], params["embed_dim"]
        self.encoder = Encoder(**dd)
        self.decoder = Decoder(**dd)
        self.quant_conv = nn.Conv2d(2 * dd["z_channels"], 2 * channels, 1)
        self.post_quant_conv = nn.Conv2d(channels, dd["z_channels"], 1)

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The mean and the logarithm of the variance of the latents."""
        mean, logvar = self.quant_conv(self.encoder(x)).chunk(2, 1)
        return mean, logvar.clamp(-30, 20)

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """The pictures of latents ``z``, in about [-1, 1]."""
        return self.decoder(self.post_quant_conv(z))


def build_unet(params: dict) -> nn.Module:
    """ldm's UNet."""
    from ldm.modules.diffusionmodules.openaimodel import UNetModel

    return UNetModel(**params)


class TextLayer(nn.Module):
    """One layer of CLIP's text model."""

    def __init__(self, width: int, inner: int, heads: int):
        super().__init__()
        self.heads = heads
        self.self_attn = nn.ModuleDict({name: nn.Linear(width, width)
                                        for name in ("k_proj", "v_proj", "q_proj", "out_proj")})
        self.layer_norm1 = nn.LayerNorm(width)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, inner), "fc2": nn.Linear(inner, width)})
        self.layer_norm2 = nn.LayerNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The hidden states after causal self-attention and the feed-forward part."""
        h = self.layer_norm1(x)
        q, k, v = (_split(self.self_attn[name](h), self.heads) for name in ("q_proj", "k_proj", "v_proj"))
        x = x + self.self_attn["out_proj"](_join(F.scaled_dot_product_attention(q, k, v, is_causal=True)))
        h = self.mlp["fc1"](self.layer_norm2(x))
        return x + self.mlp["fc2"](h * torch.sigmoid(1.702 * h))


class TextEncoder(nn.Module):
    """CLIP's text model, with transformers' parameter names (below ``text_model.``)."""

    def __init__(self, config: dict):
        super().__init__()
        width = config["hidden_size"]
        self.embeddings = nn.ModuleDict({
            "token_embedding": nn.Embedding(config["vocab_size"], width),
            "position_embedding": nn.Embedding(CONTEXT_LENGTH, width)})
        self.encoder = nn.ModuleDict({"layers": nn.ModuleList(
            TextLayer(width, config["intermediate_size"], config["num_attention_heads"])
            for _ in range(config["num_hidden_layers"]))})
        self.final_layer_norm = nn.LayerNorm(width)
        nn.init.normal_(self.embeddings["token_embedding"].weight, std=0.1)
        nn.init.normal_(self.embeddings["position_embedding"].weight, std=0.02)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """The last hidden state ``[n, 77, width]`` of the token ids ``[n, 77]``."""
        x = self.embeddings["token_embedding"](ids) + self.embeddings["position_embedding"].weight[: ids.shape[1]]
        for layer in self.encoder["layers"]:
            x = layer(x)
        return self.final_layer_norm(x)


def _split(x: torch.Tensor, heads: int) -> torch.Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def _join(x: torch.Tensor) -> torch.Tensor:
    return x.transpose(1, 2).flatten(2)


def _transformer(module: nn.Module, x: torch.Tensor, context: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The output of ldm's ``SpatialTransformer`` of depth 1, and its cross-attention map.

    The map is the mean over heads, ``[n, pixels, tokens]``.
    """
    _n, _, height, width = x.shape
    block = module.transformer_blocks[0]
    h = module.proj_in(module.norm(x)).flatten(2).transpose(1, 2)
    own = block.norm1(h)
    self_ = block.attn1
    q, k, v = (_split(layer(own), self_.heads) for layer in (self_.to_q, self_.to_k, self_.to_v))
    h = h + self_.to_out(_join(F.scaled_dot_product_attention(q, k, v)))
    cross = block.attn2
    q, k, v = (_split(t, cross.heads) for t in (cross.to_q(block.norm2(h)), cross.to_k(context), cross.to_v(context)))
    weights = torch.softmax((q @ k.transpose(-1, -2)).float() * cross.scale, -1)
    h = h + cross.to_out(_join(weights.to(v.dtype) @ v))
    h = h + block.ff(block.norm3(h))
    return module.proj_out(h.transpose(1, 2).unflatten(2, (height, width))) + x, weights.mean(1)


@dataclass(frozen=True)
class Region:
    """Pixels that are at a noise level of their own: bool ``inside [n, 1, h, w]``, and the
    embedding ``emb [n, E]`` of their timestep."""

    inside: torch.Tensor
    emb: torch.Tensor


def _res_block(module: nn.Module, x: torch.Tensor, emb: torch.Tensor, region: Region | None) -> torch.Tensor:
    """The output of ldm's ``ResBlock``. A pixel has its own timestep's embedding, and a smaller
    feature map takes the top left pixel of each of its cells, as while sampling."""
    if region is None:
        return module(x, emb)
    h = module.in_layers(x)
    own, other = (module.emb_layers(one)[:, :, None, None].to(h.dtype) for one in (emb, region.emb))
    step = region.inside.shape[-1] // h.shape[-1]
    h = h + torch.where(region.inside[..., ::step, ::step], other, own)
    return module.skip_connection(x) + module.out_layers(h)


def _stage(stage: nn.Module, h: torch.Tensor, emb: torch.Tensor, context: torch.Tensor,
           maps: dict[int, list[torch.Tensor]], region: Region | None) -> torch.Tensor:
    for module in stage:
        if hasattr(module, "emb_layers"):
            h = _res_block(module, h, emb, region)
        elif hasattr(module, "transformer_blocks"):
            h, weights = _transformer(module, h, context)
            maps.setdefault(h.shape[-1], []).append(weights)
        else:
            h = module(h)
    return h


def unet_with_maps(unet: nn.Module, x: torch.Tensor, timesteps: torch.Tensor, context: torch.Tensor,
                   inside: torch.Tensor | None = None, others: torch.Tensor | None = None
                   ) -> tuple[torch.Tensor, dict[int, torch.Tensor]]:
    """The UNet's prediction, and mean attention maps ``[n, pixels, tokens]`` by the width of their
    levels.

    Pixels ``inside``, bool ``[n, 1, h, w]``, are at the timesteps ``others [n]``, all else at
    ``timesteps``.
    """
    half = unet.model_channels // 2
    frequency = torch.exp(torch.arange(half, device=x.device, dtype=torch.float32) * (-math.log(10000) / half))

    def embedded(t: torch.Tensor) -> torch.Tensor:
        angle = t[:, None].float() * frequency[None]
        return unet.time_embed(torch.cat([angle.cos(), angle.sin()], -1))

    emb = embedded(timesteps)
    region = None if inside is None or others is None else Region(inside, embedded(others))
    maps: dict[int, list[torch.Tensor]] = {}
    h, skips = x, []
    for stage in unet.input_blocks:
        h = _stage(stage, h, emb, context, maps, region)
        skips.append(h)
    h = _stage(unet.middle_block, h, emb, context, maps, region)
    for stage in unet.output_blocks:
        h = _stage(stage, torch.cat([h, skips.pop()], 1), emb, context, maps, region)
    return unet.out(h), {width: torch.stack(layers).mean(0) for width, layers in maps.items()}
