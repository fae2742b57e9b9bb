"""A stand-in for a transformer, and its family: tokens of 2×2 pixels, time by modulation (adaLN).

Its tokens attend to the prompt alone, so that each is a function of its own pixels, its own
timestep and the prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, silu

from asyndm_lib.errors import Unsupported
from asyndm_lib.models.family import CellTimesteps, Size, TokenMaps
from asyndm_lib.models.parts.batched_token_maps import BatchedTokenMaps
from asyndm_lib.models.parts.own_pass import OwnPass
from asyndm_lib.models.parts.patching import replaced
from asyndm_lib.models.parts.token_maps import MapLayers

SIDE = 2


class ToyTransformer(nn.Module):
    """Two blocks, each with a modulation and an attention to the prompt."""

    def __init__(self, channels: int = 4, width: int = 16, context: int = 8, seed: int = 0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.patches = nn.Linear(channels * SIDE**2, width)
            self.time = nn.Sequential(nn.Linear(1, width), nn.SiLU(), nn.Linear(width, width))
            self.blocks = nn.ModuleList(ToyBlock(width, context) for _ in range(2))
            self.last = nn.Linear(width, channels * SIDE**2)
        self.requires_grad_(False)

    def forward(self, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        """``x [N, C, H, W]``, ``t [N]``, ``context [N, tokens, E]`` → ``[N, C, H, W]``."""
        height, width = x.shape[-2:]
        x = pad(x, (0, width % SIDE, 0, height % SIDE))
        n, c, h, w = x.shape
        tokens = x.unflatten(2, (h // SIDE, SIDE)).unflatten(4, (w // SIDE, SIDE)).permute(0, 2, 4, 1, 3, 5)
        tokens, vec = self.patches(tokens.flatten(3).flatten(1, 2)), self.time(t[:, None] / 1000)
        for block in self.blocks:
            tokens = block(tokens, vec, context)
        out = self.last(tokens).view(n, h // SIDE, w // SIDE, c, SIDE, SIDE).permute(0, 3, 1, 4, 2, 5)
        return out.reshape(n, c, h, w)[..., :height, :width]


class ToyBlock(nn.Module):
    """Shift, scale and gate of the tokens, and an attention to the prompt."""

    def __init__(self, width: int, context: int, heads: int = 2):
        super().__init__()
        self.modulation, self.attention = nn.Linear(width, 3 * width), nn.Module()
        self.attention.heads, self.attention.scale = heads, (width // heads) ** -0.5
        self.attention.to_q, self.attention.to_k = nn.Linear(width, width), nn.Linear(context, width)
        self.value = nn.Linear(context, width)

    def forward(self, x: Tensor, vec: Tensor, context: Tensor) -> Tensor:
        """``x [N, tokens, D]`` and ``vec [N, D]`` → ``[N, tokens, D]``."""
        modulation = self.modulation(silu(vec))
        if modulation.dim() == 2:
            modulation = modulation[:, None]
        shift, scale, gate = modulation.chunk(3, dim=-1)
        x = nn.functional.layer_norm(x, x.shape[-1:]) * (1 + scale) + shift
        q, k, v = self.attention.to_q(x), self.attention.to_k(context), self.value(context)
        q, k, v = (y.unflatten(-1, (self.attention.heads, -1)).transpose(1, 2) for y in (q, k, v))
        attended = (q @ k.transpose(-1, -2) * self.attention.scale).softmax(dim=-1) @ v
        return x + gate * attended.transpose(1, 2).flatten(2)


class ToyTimesteps:
    """Every token has the modulation of its own timestep, from a table of the distinct ones."""

    problems = frozenset()

    def __init__(self, model: ToyTransformer):
        self._model, self._attached = model, ExitStack()
        self._timesteps: Tensor | None = None
        self._lagging: Tensor | None = None

    def attach(self) -> None:
        self._attached.callback(self._model.time.register_forward_hook(self._after_time).remove)
        for block in self._model.blocks:
            spread = partial(self._spread, block.modulation.forward)
            self._attached.enter_context(replaced(block.modulation, "forward", spread))

    def detach(self) -> None:
        self._attached.close()

    @contextmanager
    def use(self, timesteps: Tensor, index: Tensor, coming: Iterable[Tensor] | None = ()) -> Iterator[None]:
        self._timesteps, self._index = timesteps, index.flatten(1)
        try:
            yield
        finally:
            self._timesteps = self._lagging = None

    def _after_time(self, module: nn.Module, args: tuple, output: Tensor) -> None:
        if self._timesteps is None or self._lagging is not None or len(self._timesteps) < 2:
            return
        self._lagging = output  # the module is called again from here
        self._lagging = module(self._timesteps[1:, None].to(output) / 1000)

    def _spread(self, project: Callable[[Tensor], Tensor], vec: Tensor) -> Tensor:
        if self._lagging is None:
            return project(vec)
        table, n = torch.cat([project(vec), project(silu(self._lagging))]), len(vec)
        rows = torch.where(self._index == 0, torch.arange(n)[:, None], self._index + n - 1)
        return table[rows]


class ToyFamily:
    """The family of the toy."""

    name = "toy"

    def matches(self, model: nn.Module) -> bool:
        return hasattr(model, "patches")

    def check(self, model: nn.Module) -> None:
        if not isinstance(model, ToyTransformer):
            raise Unsupported("this model is no toy")

    def side(self, model: nn.Module) -> int:
        return SIDE

    def timesteps(self, model: nn.Module) -> CellTimesteps:
        return ToyTimesteps(model)

    def norms(self, model: nn.Module) -> None:
        return None

    def token_maps(self, model: nn.Module, latent: Size, piece: Size | None = None) -> TokenMaps:
        height, width = piece or latent
        size = -(-height // SIDE), -(-width // SIDE)
        attentions = [block.attention for block in model.blocks]
        return BatchedTokenMaps(MapLayers(attentions, [], size, OwnPass(model, model.patches)))


FAMILY = ToyFamily()
