"""The transformer of Stable Diffusion 3 (MMDiT; Esser et al. 2024, arXiv 2403.03206).

Modules have the names that the reference checkpoints give their weights. Picture and text are two
streams of tokens with weights of their own, which meet in one joint attention in every block.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FREQUENCIES = 256
"""How many sines and cosines embed a timestep."""


class MMDiT(nn.Module):
    """The transformer. A token of the picture stands for a patch of ``patch_size``² latent pixels.

    ``depth``: joint blocks. ``hidden_size``: the width of both streams. ``head_size``: of an
    attention head; the reference's is 64. ``context_size`` and ``pooled_size``: the widths of the
    text's tokens and of its one pooled vector. ``qk_norm``: None or "rms". ``dual_blocks``: how
    many blocks, from the first on, have a second attention among the picture's tokens alone, as
    13 of Stable Diffusion 3.5 medium do. ``pos_embed_max_size``: the most tokens along a side.
    """

    def __init__(
        self,
        depth: int,
        hidden_size: int,
        context_size: int,
        pooled_size: int,
        in_channels: int = 16,
        patch_size: int = 2,
        head_size: int = 64,
        mlp_ratio: float = 4.0,
        qk_norm: str | None = None,
        dual_blocks: int = 0,
        pos_embed_max_size: int = 192,
    ):
        super().__init__()
        self.in_channels, self.patch_size, self.pos_embed_max_size = in_channels, patch_size, pos_embed_max_size
        self.x_embedder = PatchEmbed(in_channels, hidden_size, patch_size)
        self.t_embedder = TimestepEmbedder(hidden_size)
        self.y_embedder = VectorEmbedder(pooled_size, hidden_size)
        self.context_embedder = nn.Linear(context_size, hidden_size)
        self.register_buffer("pos_embed", sines_of_places(hidden_size, pos_embed_max_size)[None])
        size = hidden_size, hidden_size // head_size, mlp_ratio, qk_norm
        self.joint_blocks = nn.ModuleList(
            JointBlock(*size, pre_only=n == depth - 1, dual=n < dual_blocks) for n in range(depth)
        )
        self.final_layer = FinalLayer(hidden_size, patch_size, in_channels)

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor, y: Tensor) -> Tensor:
        """The velocity ``noise - picture`` ``[n, C, h, w]`` at the latents ``x``.

        ``timesteps`` ``[n]`` are 1000 · sigma. ``context`` is ``[n, tokens, context_size]`` and
        ``y`` ``[n, pooled_size]``. A latent whose sides do not divide into patches is padded.
        """
        height, width = x.shape[-2:]
        patch = self.patch_size
        if height % patch or width % patch:
            x = F.pad(x, (0, -width % patch, 0, -height % patch), mode="circular")
        rows, columns = (side // patch for side in x.shape[-2:])
        x = self.x_embedder(x) + self.places(rows, columns)
        c = self.t_embedder(timesteps, x.dtype) + self.y_embedder(y)
        context = self.context_embedder(context)
        for block in self.joint_blocks:
            context, x = block(context, x, c)
        x = self.final_layer(x, c)
        x = x.unflatten(1, (rows, columns)).unflatten(-1, (patch, patch, self.in_channels))
        return torch.einsum("nhwpqc->nchpwq", x).flatten(4, 5).flatten(2, 3)[..., :height, :width]

    def places(self, rows: int, columns: int) -> Tensor:
        """The middle ``rows`` × ``columns`` of the embedded places, ``[1, tokens, width]``."""
        most = self.pos_embed_max_size
        top, left = (most - rows) // 2, (most - columns) // 2
        table = self.pos_embed.unflatten(1, (most, most))
        return table[:, top : top + rows, left : left + columns].flatten(1, 2)


class PatchEmbed(nn.Module):
    """Latents → a token for each patch, row by row."""

    def __init__(self, channels: int, width: int, patch: int):
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch, patch)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


class TimestepEmbedder(nn.Module):
    """Timesteps ``[n]`` → ``[n, width]``."""

    def __init__(self, width: int):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor, dtype: torch.dtype) -> Tensor:
        half = FREQUENCIES // 2
        frequencies = torch.exp(-math.log(10000) / half * torch.arange(half, dtype=torch.float32, device=t.device))
        angles = t[:, None].float() * frequencies
        return self.mlp(torch.cat([angles.cos(), angles.sin()], dim=-1).to(dtype))


class VectorEmbedder(nn.Module):
    """The pooled text ``[n, pooled]`` → ``[n, width]``."""

    def __init__(self, pooled: int, width: int):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(pooled, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, y: Tensor) -> Tensor:
        return self.mlp(y)


class JointBlock(nn.Module):
    """One block of both streams, with one attention over the tokens of both, the text's first."""

    def __init__(
        self, width: int, heads: int, mlp_ratio: float, qk_norm: str | None, pre_only: bool, dual: bool
    ):
        """``pre_only``: whether nothing reads the text behind this block; it is left out then."""
        super().__init__()
        self.context_block = StreamBlock(width, heads, mlp_ratio, qk_norm, pre_only=pre_only)
        self.x_block = StreamBlock(width, heads, mlp_ratio, qk_norm, dual=dual)

    def forward(self, context: Tensor, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Both streams behind the block; ``c`` ``[n, width]`` is time and pooled text."""
        context_qkv, _, context_rest = self.context_block.pre_attention(context, c)
        x_qkv, own_qkv, x_rest = self.x_block.pre_attention(x, c)
        joint = [torch.cat(pair, dim=1) for pair in zip(context_qkv, x_qkv, strict=True)]
        text, picture = attention(*joint).split([context.shape[1], x.shape[1]], dim=1)
        own = None if own_qkv is None else attention(*own_qkv)
        if not self.context_block.pre_only:
            context = self.context_block.post_attention(text, None, context, *context_rest)
        return context, self.x_block.post_attention(picture, own, x, *x_rest)


class StreamBlock(nn.Module):
    """The part of a joint block that one stream has of its own."""

    def __init__(
        self,
        width: int,
        heads: int,
        mlp_ratio: float,
        qk_norm: str | None,
        pre_only: bool = False,
        dual: bool = False,
    ):
        super().__init__()
        self.pre_only = pre_only
        self.norm1 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.attn = SelfAttention(width, heads, qk_norm, pre_only)
        self.attn2 = SelfAttention(width, heads, qk_norm) if dual else None
        if not pre_only:
            self.norm2 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
            self.mlp = Mlp(width, int(width * mlp_ratio))
        self.chunks = 2 if pre_only else 9 if dual else 6
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, self.chunks * width))

    def pre_attention(self, x: Tensor, c: Tensor) -> tuple[list[Tensor], list[Tensor] | None, list[Tensor | None]]:
        """What goes into the joint attention and into the second one, and the rest of the
        modulation."""
        shift, scale, *rest = self.adaLN_modulation(c).chunk(self.chunks, dim=1)
        x = self.norm1(x)
        qkv = self.attn.pre_attention(modulate(x, shift, scale))
        if self.attn2 is None:
            return qkv, None, [*rest, None]
        gate, shift_mlp, scale_mlp, gate_mlp, shift2, scale2, gate2 = rest
        qkv2 = self.attn2.pre_attention(modulate(x, shift2, scale2))
        return qkv, qkv2, [gate, shift_mlp, scale_mlp, gate_mlp, gate2]

    def post_attention(
        self,
        attended: Tensor,
        own: Tensor | None,
        x: Tensor,
        gate: Tensor,
        shift_mlp: Tensor,
        scale_mlp: Tensor,
        gate_mlp: Tensor,
        gate2: Tensor | None,
    ) -> Tensor:
        """The stream behind the block."""
        x = x + gate.unsqueeze(1) * self.attn.proj(attended)
        if own is not None:
            x = x + gate2.unsqueeze(1) * self.attn2.proj(own)
        return x + gate_mlp.unsqueeze(1) * self.mlp(modulate(self.norm2(x), shift_mlp, scale_mlp))


class SelfAttention(nn.Module):
    """The projections around an attention. The attention itself is :func:`attention`."""

    def __init__(self, width: int, heads: int, qk_norm: str | None, pre_only: bool = False):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        if not pre_only:
            self.proj = nn.Linear(width, width)
        norm = {None: nn.Identity, "rms": RMSNorm}[qk_norm]
        self.ln_q, self.ln_k = norm(width // heads), norm(width // heads)

    def pre_attention(self, x: Tensor) -> list[Tensor]:
        """q, k and v, ``[n, tokens, heads, size]`` each."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(2)
        return [self.ln_q(q), self.ln_k(k), v]


class RMSNorm(nn.Module):
    """Division by the root of the mean square, and a learned factor."""

    def __init__(self, size: int, eps: float = 1e-6):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + self.eps) * self.weight.to(x.dtype)


class Mlp(nn.Module):
    """The feed-forward part of a stream."""

    def __init__(self, width: int, inner: int):
        super().__init__()
        self.fc1 = nn.Linear(width, inner)
        self.act = nn.GELU(approximate="tanh")
        self.fc2 = nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class FinalLayer(nn.Module):
    """Tokens → the pixels of their patches."""

    def __init__(self, width: int, patch: int, channels: int):
        super().__init__()
        self.norm_final = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.linear = nn.Linear(width, patch * patch * channels)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(c).chunk(2, dim=1)
        return self.linear(modulate(self.norm_final(x), shift, scale))


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """``x [n, tokens, width]`` scaled and shifted by vectors ``[n, width]``."""
    return x * (1 + scale.unsqueeze(1)) + shift.unsqueeze(1)


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention ``[n, tokens, width]`` of ``[n, tokens, heads, size]`` each."""
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def sines_of_places(width: int, side: int) -> Tensor:
    """Fixed embeddings of the places of a square of ``side``² tokens, ``[side², width]``.

    The first half of a vector is the column's sines and cosines, the second the row's.
    """
    frequencies = 10000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width / 4))
    angles = torch.arange(side, dtype=torch.float64)[:, None] * frequencies
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)  # [side, width / 2]
    columns, rows = waves.repeat(side, 1), waves.repeat_interleave(side, dim=0)
    return torch.cat([columns, rows], dim=1).float()
