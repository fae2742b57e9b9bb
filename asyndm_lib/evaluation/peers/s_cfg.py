"""S-CFG, semantic-aware guidance (Shen et al., CVPR 2024, arXiv 2404.05384).

At every step the latent is cut into one region per token by its cross-attention maps, which the
self-attention maps complete. Then each region's guidance is scaled so that its mean strength ``‖e_c
- e_u‖`` is that of the foreground.

What the paper leaves open follows the authors' program. The two finest levels with attention below
the latent's own size count alike. The foreground is where the start token does not win against all
other tokens together, in the unconditional copy. Factors are held within 0.8 and 3, the scale
within 15, and the factors are smoothed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .cfg import Guidance

POWERS = 4
"""``R``: how many powers of the self-attention map are averaged to complete a cross-attention map
(the paper's eq. 7)."""

LEAST, MOST, CEILING = 0.8, 3.0, 15.0
SPREAD = 0.5
"""The spread, in cells, of the smoothing by 3 by 3."""


class SemanticGuidance(Guidance):
    """Guidance with a scale for each region."""

    def __init__(self, scale: float):
        super().__init__(scale)
        self._maps = _AttentionMaps()

    @contextmanager
    def attached(self, unet: nn.Module) -> Iterator[None]:
        """Hook the UNet's attention projections inside the ``with``."""
        with self._maps.attached(unet):
            yield

    def combine(self, outputs: Sequence[Tensor]) -> Tensor:
        conditional, unconditional = outputs
        delta = conditional - unconditional
        regions, foreground = cut(self._maps.take())
        return unconditional + self.scale * factors(delta, regions, foreground, self.scale) * delta


class _AttentionMaps:
    """Records the attention maps of one call of a UNet: per layer the self- and the
    cross-attention's, mean over heads."""

    def __init__(self) -> None:
        self._layers: list[dict[str, Tensor]] = []
        self._queries: dict[str, Tensor] = {}

    @contextmanager
    def attached(self, unet: nn.Module) -> Iterator[None]:
        with ExitStack() as stack:
            for block in unet.modules():
                if hasattr(block, "attn1") and hasattr(block, "attn2"):
                    for name in ("attn1", "attn2"):
                        attention = getattr(block, name)
                        hooks = self._query(name), self._key(name, attention.heads, attention.scale)
                        for part, hook in zip((attention.to_q, attention.to_k), hooks, strict=True):
                            stack.callback(part.register_forward_hook(hook).remove)
            yield
        self._layers.clear()
        self._queries.clear()

    def take(self) -> list[dict[str, Tensor]]:
        """The layers recorded since the last call of this: ``attn1 [2B, n, n]`` and ``attn2 [2B, n,
        tokens]`` each."""
        layers, self._layers = self._layers, []
        return layers

    def _query(self, name: str):
        def hook(module: nn.Module, args: tuple, output: Tensor) -> None:
            self._queries[name] = output

        return hook

    def _key(self, name: str, heads: int, scale: float):
        def hook(module: nn.Module, args: tuple, output: Tensor) -> None:
            q, k = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (self._queries.pop(name), output))
            maps = ((q * scale) @ k.transpose(-1, -2)).float().softmax(dim=-1).mean(dim=1)
            if name == "attn1":
                self._layers.append({})
            self._layers[-1][name] = maps

        return hook


def cut(layers: Sequence[dict[str, Tensor]]) -> tuple[Tensor, Tensor]:
    """The token of every pixel of the finest level, int64 ``[B, h, w]``, and whether the pixel is
    foreground.

    ``layers`` hold square maps, the conditional copies first.
    """
    sizes = sorted({layer["attn1"].shape[1] for layer in layers}, reverse=True)[:2]
    side, count = math.isqrt(sizes[0]), 0
    tokens = fore = 0
    for layer in layers:
        if layer["attn1"].shape[1] not in sizes:
            continue
        attention = _completed(layer["attn1"], layer["attn2"]).transpose(1, 2).unflatten(-1, _square(layer["attn1"]))
        attention = F.interpolate(attention, (side, side), mode="bilinear") if attention.shape[-1] < side else attention
        attention = smoothed(attention)
        conditional, unconditional = attention.chunk(2)
        both = torch.stack([unconditional[:, 0], unconditional[:, 1:].sum(dim=1)], dim=1)
        tokens = tokens + _relative(conditional)
        fore = fore + _relative(both)
        count += 1
    return (tokens / count).argmax(dim=1), (fore / count).argmax(dim=1) > 0


def factors(delta: Tensor, regions: Tensor, foreground: Tensor, scale: float) -> Tensor:
    """The factor of the guidance ``scale`` at each pixel, ``[B, 1, H, W]``, for a guidance ``delta
    [B, C, H, W]``."""
    size = delta.shape[-2:]
    regions = F.interpolate(regions[:, None].float(), size, mode="nearest").long().flatten(1)
    foreground = F.interpolate(foreground[:, None].float(), size, mode="nearest").flatten(1)
    strength = delta.norm(dim=1).flatten(1)
    tokens = int(regions.max()) + 1
    total = strength.new_zeros(len(delta), tokens).scatter_add(1, regions, strength)
    area = strength.new_zeros(len(delta), tokens).scatter_add(1, regions, torch.ones_like(strength))
    own = (total / area.clamp(min=1)).gather(1, regions)
    wanted = (strength * foreground).sum(1, keepdim=True) / foreground.sum(1, keepdim=True).clamp(min=1)
    # A picture without any foreground keeps the scale as it is.
    wanted = torch.where(foreground.any(1, keepdim=True), wanted, own)
    rate = (wanted / own.clamp(min=1e-8)).clamp(LEAST, MOST).clamp(max=CEILING / scale)
    return smoothed(rate.view(-1, 1, *size))


def smoothed(maps: Tensor) -> Tensor:
    """``maps [B, T, h, w]``, smoothed by a 3×3 Gaussian."""
    line = torch.exp(-torch.tensor([1.0, 0.0, 1.0], device=maps.device) / (2 * SPREAD**2))
    kernel = line[:, None] * line
    b, t = maps.shape[:2]
    padded = F.pad(maps.reshape(b * t, 1, *maps.shape[-2:]), (1, 1, 1, 1), mode="reflect")
    return F.conv2d(padded, (kernel / kernel.sum())[None, None].to(maps.dtype)).view_as(maps)


def _completed(own: Tensor, cross: Tensor) -> Tensor:
    """The mean of ``S^r`` for r = 1 … R, times the cross-attention map ``[2B, n, tokens]``."""
    total, part = 0, cross
    for _ in range(POWERS):
        part = own @ part
        total = total + part
    return total / POWERS


def _relative(maps: Tensor) -> Tensor:
    """Each map as multiples of its mean."""
    return maps / (maps.mean(dim=(-2, -1), keepdim=True) + 1e-8)


def _square(own: Tensor) -> tuple[int, int]:
    side = math.isqrt(own.shape[1])
    return side, side
