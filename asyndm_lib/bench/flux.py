"""The transformer of Flux.1 (Black Forest Labs 2024), under the names of its reference checkpoints,
as Forge and Forge Neo have it.

It is here to be timed: the WebUIs have classes of their own. ``double_blocks`` have a stream for
the picture and one for the text, which meet in the attention; ``single_blocks`` have one stream of
both, the text first.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models.parts.pixel_timesteps import timestep_embedding

WAVES, TIME = 256, 1000
"""How many sines and cosines embed a timestep or the distilled guidance, and the factor of either
before that."""

PATCH = 2
THETA = 10000


class Flux(nn.Module):
    """The transformer. A token of the picture stands for a patch of 2×2 latent pixels.

    ``depth`` and ``single_depth``: double and single blocks. ``axes``: how many of a head's numbers
    are turned by a token's index, row and column. ``context_size`` and ``pooled_size``: the widths
    of the text's tokens and of its one pooled vector. ``fused``: whether modulations are one
    operation (``addcmul``), as in Forge Neo, or a product and a sum, as in Forge.
    """

    def __init__(
        self,
        depth: int = 19,
        single_depth: int = 38,
        hidden_size: int = 3072,
        heads: int = 24,
        axes: tuple[int, int, int] = (16, 56, 56),
        context_size: int = 4096,
        pooled_size: int = 768,
        in_channels: int = 16,
        fused: bool = False,
    ):
        super().__init__()
        self.axes, pixels = axes, in_channels * PATCH**2
        self.img_in, self.txt_in = nn.Linear(pixels, hidden_size), nn.Linear(context_size, hidden_size)
        self.time_in, self.guidance_in = Embedder(WAVES, hidden_size), Embedder(WAVES, hidden_size)
        self.vector_in = Embedder(pooled_size, hidden_size)
        size = hidden_size, heads, fused
        self.double_blocks = nn.ModuleList(DoubleBlock(*size) for _ in range(depth))
        self.single_blocks = nn.ModuleList(SingleBlock(*size) for _ in range(single_depth))
        self.final_layer = FinalLayer(hidden_size, pixels, fused)

    def forward(
        self, x: Tensor, timestep: Tensor, context: Tensor, y: Tensor, guidance: Tensor, **_: object
    ) -> Tensor:
        """The velocity ``noise - picture`` ``[n, C, h, w]`` at the latents ``x``.

        ``timestep`` ``[n]`` is sigma, ``guidance`` ``[n]`` the distilled guidance. ``context`` is
        ``[n, tokens, context_size]`` and ``y`` ``[n, pooled_size]``. Nothing is done with what the
        WebUIs give besides. A latent whose sides do not divide into patches is padded.
        """
        height, width = x.shape[-2:]
        x = F.pad(x, (0, -width % PATCH, 0, -height % PATCH), mode="circular")
        rows, columns = (side // PATCH for side in x.shape[-2:])
        tokens = x.unflatten(3, (-1, PATCH)).unflatten(2, (-1, PATCH)).permute(0, 2, 4, 1, 3, 5)
        img, txt = self.img_in(tokens.flatten(3).flatten(1, 2)), self.txt_in(context)
        times = (timestep_embedding(TIME * t, WAVES).to(img.dtype) for t in (timestep, guidance))
        time, distilled = (embed(t) for embed, t in zip((self.time_in, self.guidance_in), times, strict=True))
        vec = time + distilled + self.vector_in(y)
        turns = self.turns(txt.shape[1], rows, columns, img.device)
        for block in self.double_blocks:
            img, txt = block(img, txt, vec, turns)
        both = torch.cat([txt, img], dim=1)
        for block in self.single_blocks:
            both = block(both, vec, turns)
        img = self.final_layer(both[:, txt.shape[1] :], vec)
        img = img.unflatten(1, (rows, columns)).unflatten(-1, (-1, PATCH, PATCH)).permute(0, 3, 1, 4, 2, 5)
        return img.flatten(4, 5).flatten(2, 3)[..., :height, :width]

    def turns(self, words: int, rows: int, columns: int, device: torch.device) -> Tensor:
        """Cosine and sine by which each pair of a head's numbers is turned, ``[2, tokens, d / 2]``
        (Su et al. 2021). The text's tokens all stand at 0.
        """
        row, column = torch.meshgrid(*(torch.arange(n, device=device) for n in (rows, columns)), indexing="ij")
        places = F.pad(torch.stack([torch.zeros_like(row), row, column], dim=-1).flatten(0, 1), (0, 0, words, 0))
        angles = [
            places[:, axis, None] * THETA ** -(torch.arange(0, size, 2, device=device, dtype=torch.float64) / size)
            for axis, size in enumerate(self.axes)
        ]
        every = torch.cat(angles, dim=1)
        return torch.stack([every.cos(), every.sin()]).float()


class Embedder(nn.Module):
    """``[n, size]`` → ``[n, width]``."""

    def __init__(self, size: int, width: int):
        super().__init__()
        self.in_layer, self.out_layer = nn.Linear(size, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.out_layer(F.silu(self.in_layer(x)))


class Modulation(nn.Module):
    """``vec [n, width]`` → a shift, a scale and a gate for each part, ``[n, 1, width]``."""

    def __init__(self, width: int, parts: int):
        super().__init__()
        self.numbers = 3 * parts
        self.lin = nn.Linear(width, self.numbers * width)

    def forward(self, vec: Tensor) -> tuple[Tensor, ...]:
        return self.lin(F.silu(vec))[:, None].chunk(self.numbers, dim=-1)


class DoubleBlock(nn.Module):
    """Two streams of tokens, with one attention over the tokens of both, the text's first."""

    def __init__(self, width: int, heads: int, fused: bool):
        super().__init__()
        self.fused = fused
        self.img_mod, self.txt_mod = Modulation(width, 2), Modulation(width, 2)
        self.img_attn, self.txt_attn = SelfAttention(width, heads), SelfAttention(width, heads)
        self.img_mlp, self.txt_mlp = mlp(width), mlp(width)

    def forward(self, img: Tensor, txt: Tensor, vec: Tensor, turns: Tensor) -> tuple[Tensor, Tensor]:
        shift, scale, gate, *img_rest = self.img_mod(vec)
        picture = self.img_attn.heads_of(modulated(img, shift, scale, self.fused))
        shift, scale, txt_gate, *txt_rest = self.txt_mod(vec)
        text = self.txt_attn.heads_of(modulated(txt, shift, scale, self.fused))
        q, k, v = (torch.cat(both, dim=2) for both in zip(text, picture, strict=True))
        del picture, text
        attended = attention(q, k, v, turns)
        del q, k, v
        words = txt.shape[1]
        img = img + gate * self.img_attn.proj(attended[:, words:])
        txt = txt + txt_gate * self.txt_attn.proj(attended[:, :words])
        del attended
        shift, scale, gate = img_rest
        img = img + gate * self.img_mlp(modulated(img, shift, scale, self.fused))
        shift, scale, gate = txt_rest
        return img, txt + gate * self.txt_mlp(modulated(txt, shift, scale, self.fused))


class SingleBlock(nn.Module):
    """One stream of text and picture: attention and feed-forward part beside each other."""

    def __init__(self, width: int, heads: int, fused: bool):
        super().__init__()
        self.fused, self.heads, self.parts = fused, heads, (3 * width, 4 * width)
        self.linear1, self.linear2 = nn.Linear(width, 7 * width), nn.Linear(5 * width, width)
        self.norm, self.modulation = QKNorm(width // heads), Modulation(width, 1)

    def forward(self, x: Tensor, vec: Tensor, turns: Tensor) -> Tensor:
        shift, scale, gate = self.modulation(vec)
        qkv, inner = self.linear1(modulated(x, shift, scale, self.fused)).split(self.parts, dim=-1)
        attended = attention(*heads_of(qkv, self.heads, self.norm), turns)
        del qkv
        return x + gate * self.linear2(torch.cat([attended, F.gelu(inner, approximate="tanh")], dim=-1))


class SelfAttention(nn.Module):
    """The projections around an attention. The attention itself is :func:`attention`."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norm = QKNorm(width // heads)

    def heads_of(self, x: Tensor) -> list[Tensor]:
        """q, k and v, ``[n, heads, tokens, d]`` each."""
        return heads_of(self.qkv(x), self.heads, self.norm)


class QKNorm(nn.Module):
    """The norms of queries and of keys, with a learned factor."""

    def __init__(self, size: int):
        super().__init__()
        self.query_norm, self.key_norm = RMSNorm(size), RMSNorm(size)


class RMSNorm(nn.Module):
    """Division by the root of the mean square, and a learned factor."""

    def __init__(self, size: int, eps: float = 1e-6):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        if hasattr(F, "rms_norm"):
            return F.rms_norm(x, self.scale.shape, self.scale, self.eps)
        return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + self.eps) * self.scale


class FinalLayer(nn.Module):
    """Tokens → the pixels of their patches."""

    def __init__(self, width: int, pixels: int, fused: bool):
        super().__init__()
        self.fused = fused
        self.linear = nn.Linear(width, pixels)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, vec: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(vec)[:, None].chunk(2, dim=-1)
        return self.linear(modulated(x, shift, scale, self.fused))


def mlp(width: int) -> nn.Sequential:
    """The feed-forward part of a stream."""
    return nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width))


def modulated(x: Tensor, shift: Tensor, scale: Tensor, fused: bool) -> Tensor:
    """``x [n, tokens, width]``, normed, scaled and shifted by vectors ``[n, 1, width]``."""
    x = F.layer_norm(x, x.shape[-1:], eps=1e-6)
    return torch.addcmul(shift, x, 1 + scale) if fused else (1 + scale) * x + shift


def heads_of(qkv: Tensor, heads: int, norm: QKNorm) -> list[Tensor]:
    """q, k and v, ``[n, heads, tokens, d]`` each, of projections ``[n, tokens, 3·heads·d]``."""
    q, k, v = qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    return [norm.query_norm(q), norm.key_norm(k), v]


def attention(q: Tensor, k: Tensor, v: Tensor, turns: Tensor) -> Tensor:
    """Attention ``[n, tokens, heads·d]`` of ``[n, heads, tokens, d]`` each."""
    q, k = turned(q, turns), turned(k, turns)
    return attention_function(q, k, v, q.shape[1], skip_reshape=True)


def turned(x: Tensor, turns: Tensor) -> Tensor:
    """Pairs of numbers that lie beside each other, turned in single precision."""
    (cos, sin), (a, b) = turns, x.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([cos * a - sin * b, sin * a + cos * b], dim=-1).flatten(-2).to(x.dtype)


def attention_function(q: Tensor, k: Tensor, v: Tensor, heads: int, skip_reshape: bool) -> Tensor:
    """All attention is worked out here, as by the function of this name in Forge and Forge Neo.

    ``skip_reshape``: whether the ``heads`` are apart, ``[n, heads, tokens, d]``. Here they are.
    """
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
