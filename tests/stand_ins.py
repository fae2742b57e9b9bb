"""Small stand-ins for a host and its UNet, on which the core can be watched pixel by pixel."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from asyndm_lib.clock.clocks import Clock, Progress
from asyndm_lib.clock.schedule import NoiseLevels, Schedule
from asyndm_lib.clock.sigma_map import SigmaMap
from asyndm_lib.hosts.common.row_slices import RowSlices
from asyndm_lib.prompt.candidates import named_or_candidates
from asyndm_lib.prompt.prompt_targets import PromptTargets
from asyndm_lib.prompt.target_list import parse_targets
from asyndm_lib.prompt.token_search import Token
from asyndm_lib.run.host import Descent, Host
from asyndm_lib.run.run import MakeMasks, Run, masks_of
from asyndm_lib.run.step import Step
from asyndm_lib.settings.settings import Settings


def alphas_cumprod(dtype: torch.dtype = torch.float64) -> Tensor:
    """The ``alphas_cumprod`` of Stable Diffusion, from "scaled linear" betas."""
    betas = torch.linspace(0.00085**0.5, 0.0120**0.5, 1000, dtype=torch.float64) ** 2
    return (1 - betas).cumprod(dim=0).to(dtype)


LEVELS = NoiseLevels(alphas_cumprod())

FLOW: tuple[Callable, Callable] = (lambda sigma: sigma * 1000, lambda t: t / 1000)
"""Of a rectified flow's sigmas, from 1 to 0, to timesteps and back."""


def uniform_sigmas(n: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """``n`` sigmas with evenly spaced timesteps, and 0."""
    sigmas = LEVELS.t_to_sigma(torch.linspace(999, 0, n, dtype=torch.float64))
    return torch.cat([sigmas, torch.zeros(1)]).to(dtype)


def flow_sigmas(n: int, dtype: torch.dtype = torch.float64, shift: float = 3.0) -> Tensor:
    """``n`` sigmas of a flow, whose way down is bent by ``shift``, and 0. The first is exactly 1.
    """
    t = torch.linspace(1, 0, n + 1, dtype=torch.float64)
    return (shift * t / (1 + (shift - 1) * t)).to(dtype)


def at_every_cell(progress: Progress) -> Tensor:
    """``u`` of every cell, float64 ``[B, 1, h, w]``."""
    return progress.levels.to(progress.index.device)[progress.index]


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
    """A UNet with the parts that the method looks for. It attends at random, or as ``attend``
    says."""

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

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The projections that it attended with."""
        n, h, w = len(x), -(-x.shape[-2] // 2), -(-x.shape[-1] // 2)
        self.time_embed(x.new_zeros(n, 2))
        attention = self.input_blocks[1].attn2
        return (
            attention.to_q(3 * torch.randn(n, h * w, self._channels, generator=self._random).to(x.device)),
            attention.to_k(3 * torch.randn(n, self._context, self._channels, generator=self._random).to(x.device)),
        )


def tiny_unet(seed: int = 0, **options: object) -> nn.Module:
    """ldm's own UNet of the smallest size, every weight random (ldm starts the last layer of each
    block at zero)."""
    from ldm.modules.diffusionmodules.openaimodel import UNetModel

    size = {
        "image_size": 8,
        "in_channels": 4,
        "model_channels": 32,
        "out_channels": 4,
        "num_res_blocks": 1,
        "attention_resolutions": [2],
        "channel_mult": (1, 2),
        "num_heads": 2,
        "use_spatial_transformer": True,
        "context_dim": 8,
        "legacy": False,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        unet = UNetModel(**{**size, **options}).eval().requires_grad_(False)
    random = torch.Generator().manual_seed(seed)
    for parameter in unet.parameters():
        scale = 0.5 * parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.2
        parameter += scale * torch.randn(parameter.shape, generator=random)
    return unet


def hooks_on(unet: nn.Module) -> int:
    """The number of hooks, and of ``forward`` of their own, on the modules of ``unet``."""
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) + ("forward" in vars(m)) for m in unet.modules())


class Noise:
    """Random numbers that can be drawn again."""

    def __init__(self, seed: int = 0):
        self._random = torch.Generator().manual_seed(seed)

    @contextlib.contextmanager
    def kept(self):
        """Let what is drawn inside the ``with`` be drawn again."""
        state = self._random.get_state()
        yield
        self._random.set_state(state)

    def like(self, x: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=self._random, dtype=torch.float64).to(x)


def brownian(
    like: Callable[[Tensor], Tensor], x: Tensor, level: Callable[[Tensor], Tensor] = torch.clone
) -> Callable[[Tensor, Tensor], Tensor]:
    """A Brownian motion over ``level(sigma)``, of the numbers that ``like`` draws, shaped as ``x``.

    What is drawn from one sigma twice overlaps.
    """
    drawn: list = [None, None, None]

    def draw(sigma: Tensor, to: Tensor) -> Tensor:
        start, middle, first = drawn
        if start is None or sigma != start or middle == to:
            drawn[:] = sigma, to, like(x)
            return drawn[2]
        start, middle, end = (level(torch.as_tensor(at)) for at in (sigma, middle, to))
        shared = (start - middle) / (start - end)
        return shared**0.5 * first + (1 - shared) ** 0.5 * like(x)

    return draw


class WatchedRun(Run):
    """A run that keeps what its last pass did.

    ``unet``: the present model.
    ``targets``: those that it was made with.
    ``seen``: the sigma map of every step.
    ``glimpsed``: those of steps ahead.
    ``lagged``: the pixels that were off the host's clock at the end of every step.
    ``attended``: the projections of every model evaluation, all rows.
    ``rehearsed``: those of the ordinary pass before, where there was one.
    ``unconditional_of(x, prediction)``: the unconditional part of a prediction.
    """

    unconditional_of = staticmethod(lambda x, prediction: prediction)

    def move(self, unet: nn.Module, targets: PromptTargets | None) -> None:
        super().move(unet, targets)
        self.unet = unet

    def clock(self, descent: Descent) -> Clock:
        """The authors' grid has an advance before the first evaluation."""
        clock = super().clock(descent)
        for _ in range(getattr(descent.schedule, "lead", 0)):
            clock.advance(self.masks.latest)
        return clock

    def glance(self) -> SigmaMap | None:
        after = super().glance()
        if after is not None:
            self.glimpsed.append(after.map)
        return after

    def __iter__(self) -> Iterator[Step]:
        self.seen: list[Tensor] = []
        self.glimpsed: list[Tensor] = []
        self.lagged: list[Tensor] = []
        self.rehearsed, self.attended = getattr(self, "attended", []), []
        for step in super().__iter__():
            self.seen.append(step.sigma.map)
            yield step
            self.lagged.append(self.lagging.to(step.sigma.map))


def make_run(
    x: Tensor,
    sigmas: Tensor | list[Tensor],
    denoise: Callable[[Tensor, Tensor], Tensor],
    *,
    prompts: list | None = None,
    schedule: object = None,
    levels: tuple[Callable, Callable] = (LEVELS.sigma_to_t, LEVELS.t_to_sigma),
    scalars: object = None,
    slices: list[int] | None = None,
    callback: Callable[[dict], None] | None = None,
    masks: MakeMasks = masks_of,
    **settings: object,
) -> WatchedRun:
    """A run over ``sigmas``, which end with the final one, or over a list of descents.

    ``denoise(x, sigma map)`` is the guided model. ``levels`` lead from its sigmas to timesteps
    and back. ``prompts`` are a text per image, or a list of
    ``AND`` parts, each a text or a schedule of ``(last step, text)``. ``slices`` say how many rows
    each call of the UNet within one evaluation takes.
    """
    prompts = prompts or ["a cat and a dog"] * len(x)
    parts = [
        [
            [(10**6, part)] if isinstance(part, str) else part
            for part in ([prompt] if isinstance(prompt, str) else prompt)
        ]
        for prompt in prompts
    ]
    rows = [(image, part) for image, own in enumerate(parts) for part in range(len(own))]
    rows += [(image, None) for image in range(len(x))]
    row_slices, counted = RowSlices(rows), [0]
    noise = Noise()

    def predict(x: Tensor, sigma: Tensor) -> Tensor:
        levels, attended = [], []
        row_slices.begin()
        for count in slices or [len(rows)]:
            batch = x[:1].expand(count, *x.shape[1:])
            with run.rows(row_slices.of(batch)) as here:
                attended.append(run.unet(batch))
            levels.append(torch.where(here.lagging, here.sigma, sigma.to(here.sigma)))
        run.attended.append(tuple(torch.cat(projections) for projections in zip(*attended, strict=True)))
        counted[0] += 1
        # The unconditional rows come last, one per image.
        prediction = denoise(x, torch.cat(levels)[-len(x) :])
        run.unconditional = run.unconditional_of(x, prediction)
        return prediction

    @contextlib.contextmanager
    def rehearsal() -> Iterator[None]:
        before = counted[0]
        with noise.kept():
            yield
        counted[0] = before

    host = Host(
        model=AttendingUNet().to(x.device),
        descents=[
            Descent(
                schedule or Schedule(way[:-1], *levels),
                scalars or list(way),
            )
            for way in (sigmas if isinstance(sigmas, list) else [sigmas])
        ],
        predict=predict,
        step=lambda: counted[0],
        unconditional=lambda: run.unconditional,
        randn_like=noise.like,
        callback=callback,
        progress=iter,
        rehearsal=rehearsal,
        steady=lambda: True,
    )
    chosen = Settings(**settings)
    targets = None
    if not chosen.whole_picture:
        targets = named_or_candidates([parse_targets(chosen.targets)] * len(x), parts, words)
    run = WatchedRun(host, chosen, targets, x, masks=masks)
    run.unet, run.targets = host.model, targets
    return run
