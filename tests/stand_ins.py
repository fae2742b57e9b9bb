"""Small stand-ins for a host and its UNet, on which the core can be watched pixel by pixel."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from asyndm_lib.prompts import PromptTargets
from asyndm_lib.run import Host, Run, Step
from asyndm_lib.schedule import NoiseLevels, Schedule
from asyndm_lib.settings import Settings
from asyndm_lib.targets import parse_targets
from asyndm_lib.tokens import Token


def alphas_cumprod(dtype: torch.dtype = torch.float64) -> Tensor:
    """Stable Diffusion's: "scaled linear" betas."""
    betas = torch.linspace(0.00085**0.5, 0.0120**0.5, 1000, dtype=torch.float64) ** 2
    return (1 - betas).cumprod(dim=0).to(dtype)


LEVELS = NoiseLevels(alphas_cumprod())


def uniform_sigmas(n: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """``n`` sigmas with evenly spaced timesteps, and 0."""
    sigmas = LEVELS.t_to_sigma(torch.linspace(999, 0, n, dtype=torch.float64))
    return torch.cat([sigmas, torch.zeros(1)]).to(dtype)


def words(text: str) -> list[Token]:
    """A tokenizer that knows words only: one token each, the start token at position 0."""
    return [Token(word.strip(","), at, True) for at, word in enumerate(text.split(), start=1)]


class Attention(nn.Module):
    """A cross-attention of which only the projections matter."""

    def __init__(self, channels: int, heads: int = 2):
        super().__init__()
        self.heads, self.scale = heads, (channels // heads) ** -0.5
        self.to_q, self.to_k = nn.Identity(), nn.Identity()


class AttendingUNet(nn.Module):
    """Has the parts that the method looks for, and attends at random, or as ``attend`` says."""

    def __init__(self, channels: int = 8, context: int = 12, seed: int = 0):
        super().__init__()
        self.time_embed = nn.Identity()
        block = nn.Module()
        block.attn2 = Attention(channels)
        downsample = type("Downsample", (nn.Module,), {})
        self.input_blocks = nn.ModuleList([downsample(), block])
        self.middle_block, self.output_blocks = nn.Module(), nn.ModuleList()
        self._channels, self._context = channels, context
        self._random = torch.Generator().manual_seed(seed)

    def forward(self, x: Tensor) -> None:
        n, h, w = len(x), -(-x.shape[-2] // 2), -(-x.shape[-1] // 2)
        attention = self.input_blocks[1].attn2
        attention.to_q(3 * torch.randn(n, h * w, self._channels, generator=self._random))
        attention.to_k(3 * torch.randn(n, self._context, self._channels, generator=self._random))


class Noise:
    """Random numbers that can be drawn again."""

    def __init__(self, seed: int = 0):
        self._random = torch.Generator().manual_seed(seed)

    @contextlib.contextmanager
    def kept(self):
        """What is drawn inside can be drawn again."""
        state = self._random.get_state()
        yield
        self._random.set_state(state)

    def like(self, x: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=self._random, dtype=torch.float64).to(x.dtype)


class WatchedRun(Run):
    """Keeps the sigma map of every step of its last pass in ``seen``."""

    def __iter__(self) -> Iterator[Step]:
        self.seen: list[Tensor] = []
        for step in super().__iter__():
            self.seen.append(step.sigma.map)
            yield step


def make_run(
    x: Tensor,
    sigmas: Tensor,
    denoise: Callable[[Tensor, Tensor], Tensor],
    *,
    prompts: list[str] | None = None,
    schedule: object = None,
    scalars: object = None,
    **settings: object,
) -> WatchedRun:
    """A run over ``sigmas`` (the final one included) with ``denoise(x, sigma map)`` as the guided model."""
    prompts = prompts or ["a cat and a dog"] * len(x)
    unet = AttendingUNet()
    counted = [0]
    noise = Noise()

    def predict(x: Tensor, sigma: Tensor) -> Tensor:
        rows = torch.cat([x, x])
        with run.rows(len(rows)) as here:
            unet(rows)
        counted[0] += 1
        return denoise(x, here.sigma[: len(x)])

    host = Host(
        unet=unet,
        schedule=schedule or Schedule(sigmas[:-1], LEVELS.sigma_to_t, LEVELS.t_to_sigma),
        scalars=scalars or list(sigmas),
        predict=predict,
        rows=[(image, 0) for image in range(len(x))] + [(image, None) for image in range(len(x))],
        step=lambda: counted[0],
        randn_like=noise.like,
        callback=None,
        progress=iter,
        rehearsal=noise.kept,
    )
    chosen = Settings(**settings)
    targets = None
    if not chosen.whole_picture:
        targets = PromptTargets(parse_targets(chosen.targets), [[[(10**6, p)]] for p in prompts], words)
    run = WatchedRun(host, chosen, targets, x)
    return run
