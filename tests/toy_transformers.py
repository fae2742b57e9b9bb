"""Small transformers under the module names of the hosts' families, where no host is there."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm, pad, scaled_dot_product_attention, silu

from asyndm_lib.models import wan
from asyndm_lib.models.parts.pixel_timesteps import timestep_embedding

WIDTH, HEADS, SIDE = 32, 2, 2


def attention_function(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: None = None, skip_reshape: bool = False):
    """As the hosts' own: ``[n, heads, tokens, d]`` or ``[n, tokens, heads·d]`` → the latter."""
    if not skip_reshape:
        q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    return scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def patches(x: Tensor) -> Tensor:
    """``[n, C, H, W]`` → tokens ``[n, h·w, C·4]``, of which the last in a row may be half empty."""
    x = pad(x, (0, x.shape[-1] % SIDE, 0, x.shape[-2] % SIDE))
    x = x.unflatten(2, (-1, SIDE)).unflatten(4, (-1, SIDE))
    return x.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def picture(tokens: Tensor, size: tuple[int, int]) -> Tensor:
    """The other way."""
    height, width = size
    x = tokens.unflatten(1, (-(-height // SIDE), -(-width // SIDE))).unflatten(3, (-1, SIDE, SIDE))
    x = x.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
    return x[..., :height, :width]


def embedder(size: int) -> nn.Module:
    return nn.Sequential(nn.Linear(size, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH))


@dataclass
class Shifts:
    """What one part of a block is modulated by."""

    shift: Tensor
    scale: Tensor
    gate: Tensor

    def before(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.shift, layer_norm(x, x.shape[-1:]), 1 + self.scale)


class Modulation(nn.Module):
    """As many :class:`Shifts` of the vector as there are ``parts``."""

    def __init__(self, parts: int):
        super().__init__()
        self.parts, self.lin = parts, nn.Linear(WIDTH, 3 * parts * WIDTH)

    def forward(self, vec: Tensor) -> tuple[Shifts, ...]:
        numbers = self.lin(silu(vec))[:, None].chunk(3 * self.parts, dim=-1)
        return tuple(Shifts(*numbers[at : at + 3]) for at in range(0, len(numbers), 3))


class Stream(nn.Module):
    """The projections of one stream of tokens."""

    def __init__(self):
        super().__init__()
        self.qkv, self.proj, self.norm = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH))

    def heads(self, x: Tensor) -> list[Tensor]:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        return [y.unflatten(-1, (HEADS, -1)).transpose(1, 2) for y in (self.norm(q), self.norm(k), v)]


class DoubleBlock(nn.Module):
    """Two streams that meet in the attention."""

    def __init__(self):
        super().__init__()
        self.img_mod, self.txt_mod, self.img, self.txt = Modulation(2), Modulation(2), Stream(), Stream()

    def forward(self, img: Tensor, txt: Tensor, vec: Tensor) -> tuple[Tensor, Tensor]:
        (img1, img2), (txt1, txt2), words = self.img_mod(vec), self.txt_mod(vec), txt.shape[1]
        row = zip(self.txt.heads(txt1.before(txt)), self.img.heads(img1.before(img)), strict=True)
        out = attention_function(*(torch.cat(both, dim=2) for both in row), HEADS, skip_reshape=True)
        img = img + img1.gate * self.img.proj(out[:, words:])
        txt = txt + txt1.gate * self.txt.proj(out[:, :words])
        return img + img2.gate * self.img.mlp(img2.before(img)), txt + txt2.gate * self.txt.mlp(txt2.before(txt))


class SingleBlock(nn.Module):
    """One stream of text and picture."""

    def __init__(self):
        super().__init__()
        self.modulation, self.stream = Modulation(1), Stream()

    def forward(self, x: Tensor, vec: Tensor) -> Tensor:
        (own,) = self.modulation(vec)
        out = attention_function(*self.stream.heads(own.before(x)), HEADS, skip_reshape=True)
        return x + own.gate * self.stream.proj(out + gelu(x))


class Last(nn.Module):
    """Shift and scale, and out."""

    def __init__(self, channels: int):
        super().__init__()
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(WIDTH, 2 * WIDTH))
        self.linear = nn.Linear(WIDTH, channels)

    def forward(self, x: Tensor, vec: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(vec).chunk(2, dim=1)
        return self.linear((1 + scale[:, None]) * layer_norm(x, x.shape[-1:]) + shift[:, None])


class ToyFlux(nn.Module):
    """Flux's modules."""

    def __init__(self, channels: int = 16, context: int = 16, pooled: int = 12):
        super().__init__()
        self.img_in, self.txt_in = nn.Linear(channels * SIDE**2, WIDTH), nn.Linear(context, WIDTH)
        self.time_in, self.guidance_in, self.vector_in = embedder(64), embedder(64), embedder(pooled)
        self.double_blocks = nn.ModuleList(DoubleBlock() for _ in range(2))
        self.single_blocks = nn.ModuleList(SingleBlock() for _ in range(2))
        self.final_layer = Last(channels * SIDE**2)

    def forward(self, x: Tensor, timestep: Tensor, context: Tensor, y: Tensor, guidance: Tensor, ref_latents=(), **_):
        vec = self.time_in(timestep_embedding(1000 * timestep, 64).to(x.dtype))
        vec = vec + self.guidance_in(timestep_embedding(1000 * guidance, 64).to(x.dtype)) + self.vector_in(y)
        img = torch.cat([patches(x), *map(patches, ref_latents)], dim=1)
        img, txt, count = self.img_in(img), self.txt_in(context), patches(x).shape[1]
        for block in self.double_blocks:
            img, txt = block(img, txt, vec)
        row = torch.cat([txt, img], dim=1)
        for block in self.single_blocks:
            row = block(row, vec)
        return picture(self.final_layer(row[:, txt.shape[1] :], vec)[:, :count], x.shape[-2:])


class CrossAttention(nn.Module):
    """Of the picture to the text."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        return attention_function(self.q(x), self.k(context), self.v(context), heads=HEADS)


class CrossBlock(nn.Module):
    """Wan's: six vectors of the time, to which six of its own are added."""

    def __init__(self):
        super().__init__()
        self.cross_attn, self.mlp = CrossAttention(), nn.Linear(WIDTH, WIDTH)
        self.modulation = nn.Parameter(torch.zeros(1, 6, WIDTH))

    def forward(self, x: Tensor, e: Tensor, context: Tensor) -> Tensor:
        e = (self.modulation[None] + e).unbind(2)
        y = attention_function(*[layer_norm(x, x.shape[-1:]) * (1 + e[1]) + e[0]] * 3, heads=HEADS)
        x = x + y * e[2]
        x = x + self.cross_attn(x, context)
        return x + self.mlp(layer_norm(x, x.shape[-1:]) * (1 + e[4]) + e[3]) * e[5]


class CrossHead(nn.Module):
    """Two vectors of the embedding itself."""

    def __init__(self, channels: int):
        super().__init__()
        self.head, self.modulation = nn.Linear(WIDTH, channels), nn.Parameter(torch.zeros(1, 2, WIDTH))

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        shift, scale = (self.modulation[None] + e.unsqueeze(2)).unbind(2)
        return self.head(layer_norm(x, x.shape[-1:]) * (1 + scale) + shift)


class ToyWan(nn.Module):
    """Wan's modules."""

    patch_size = 1, SIDE, SIDE

    def __init__(self, channels: int = 16, context: int = 16):
        super().__init__()
        self.patch_embedding, self.text_embedding = nn.Linear(channels * SIDE**2, WIDTH), nn.Linear(context, WIDTH)
        self.time_embedding = embedder(64)
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(WIDTH, 6 * WIDTH))
        self.blocks, self.head = nn.ModuleList(CrossBlock() for _ in range(2)), CrossHead(channels * SIDE**2)

    def forward(self, x: Tensor, timestep: Tensor, context: Tensor, **_: object) -> Tensor:
        e = self.time_embedding(wan.sinusoids(timestep, x.new_empty(1, 64)))[:, None]
        vectors, context = self.time_projection(e).unflatten(2, (6, WIDTH)), self.text_embedding(context)
        tokens = self.patch_embedding(patches(x))
        for block in self.blocks:
            tokens = block(tokens, vectors, context)
        return picture(self.head(tokens, e), x.shape[-2:])


class SharedLayer(nn.Module):
    """Ernie-Image's: picture and text in one row, modulated by what all layers share."""

    def __init__(self):
        super().__init__()
        self.self_attention, self.mlp = CrossAttention(), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor, shifts: list[Tensor]) -> Tensor:
        shift, scale, gate = shifts
        y = (layer_norm(x, x.shape[-1:]).float() * (1 + scale.float()) + shift.float()).to(x.dtype)
        x = x + (gate.float() * self.self_attention(y, y).float()).to(x.dtype)
        return x + self.mlp(x)


class ToyErnie(nn.Module):
    """Ernie-Image's modules; the text comes behind the picture."""

    patch_size = SIDE

    def __init__(self, channels: int = 16, context: int = 16):
        super().__init__()
        self.x_embedder, self.text_proj = nn.Linear(channels * SIDE**2, WIDTH), nn.Linear(context, WIDTH)
        self.time_proj, self.time_embedding = Waves(), embedder(64)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(WIDTH, 3 * WIDTH))
        self.layers = nn.ModuleList(SharedLayer() for _ in range(2))
        self.final_norm, self.final_linear = nn.Module(), nn.Linear(WIDTH, channels * SIDE**2)
        self.final_norm.linear = nn.Linear(WIDTH, 2 * WIDTH)

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor, **_: object) -> Tensor:
        tokens = self.x_embedder(patches(x))
        row, count = torch.cat([tokens, self.text_proj(context)], dim=1), tokens.shape[1]
        time = self.time_embedding(self.time_proj(timesteps).to(x.dtype))
        shifts = [part.unsqueeze(1).contiguous() for part in self.adaLN_modulation(time).chunk(3, dim=-1)]
        for layer in self.layers:
            row = layer(row, shifts)
        scale, shift = self.final_norm.linear(time).chunk(2, dim=-1)
        row = layer_norm(row, row.shape[-1:]) * (1 + scale.unsqueeze(1)) + shift.unsqueeze(1)
        return picture(self.final_linear(row)[:, :count], x.shape[-2:])


class Waves(nn.Module):
    def forward(self, timesteps: Tensor) -> Tensor:
        return timestep_embedding(timesteps, 64)
