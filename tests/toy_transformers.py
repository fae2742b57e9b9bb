"""Small transformers under the module names of the hosts' families, where no host is there."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm, pad, scaled_dot_product_attention, silu

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
