"""Attend-and-Excite (Chefer et al., SIGGRAPH 2023, arXiv 2301.13826).

Before a step of the first half the latent is moved so that every subject has a pixel that looks at
it: ``z' = z - α_t·∇_z max_s (1 - max A_s)``. ``A_s`` is a subject's token map, of a softmax over
all tokens but the start token, smoothed by a 3×3 Gaussian (the paper's algorithm 1). At the first
step, and after a fifth and two fifths of them, the latent is moved again and again until the
weakest subject's maximum reaches a threshold.

The maps are those of the size that AsynDM reads, the mean over layers and heads. The softmax is of
the maps times 100, and α_t, the thresholds and the most moves at a step are those of the authors'
program. A subject of several tokens has their mean map.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...models.parts.attention_sum import no_autocast
from ...models.parts.token_maps import scale as score_scale
from ...models.unet import token_map_layers
from ...run.run import Run
from ...run.step import Step
from ...samplers.timesteps import alpha_map
from .cfg import Guidance
from .ddim_step import ddim_step
from .s_cfg import smoothed

STRENGTH = 20.0
"""The step size at the first step. It falls as the square root of a line that ends at a half."""

SHARE = 0.5
"""The part of the steps before which the latent is moved."""

THRESHOLDS = {0.0: 0.05, 0.2: 0.5, 0.4: 0.8}
"""The maximum that the weakest subject has to reach, by the part of the steps that is done."""

MOST_MOVES = 20
"""How often the latent is moved at most for a threshold."""

SHARPNESS = 100.0
"""The factor of the maps in the softmax over the tokens."""

Subjects = Callable[[int], Tensor]
"""``subjects(context)``: what each token counts for each subject, ``[B, context, T]``; zero for a
subject that is not in a picture's prompt."""


class Excitement(Guidance):
    """CFG of a latent that is moved before the prediction.

    ``strength`` is the step size at the first step. With 0 nothing is moved.
    """

    def __init__(self, scale: float, subjects: Subjects, strength: float = STRENGTH):
        super().__init__(scale)
        self._subjects, self._strength = subjects, strength
        self._unet: nn.Module | None = None
        self._share = 0.0, 1.0  # of the steps: where the present one begins and ends
        self.latent: Tensor | None = None
        """What the last prediction was made of."""

    def begin(self, step: int, steps: int) -> None:
        """Step number ``step`` of ``steps`` is next."""
        self._share = step / steps, (step + 1) / steps

    @contextmanager
    def attached(self, unet: nn.Module) -> Iterator[None]:
        """Know the UNet inside the ``with``."""
        self._unet = unet
        try:
            yield
        finally:
            self._unet = self.latent = None

    def prepared(self, x: Tensor, conditional: Callable[[Tensor], Tensor]) -> Tensor:
        """The moved latent. ``conditional`` is the model's output with the prompt."""
        self.latent = self._moved(x, conditional)
        return self.latent

    def _moved(self, x: Tensor, conditional: Callable[[Tensor], Tensor]) -> Tensor:
        begins, ends = self._share
        if begins >= SHARE or not self._strength:
            return x
        size = self._strength * math.sqrt(1 - begins / 2)
        threshold = next((value for share, value in THRESHOLDS.items() if begins <= share < ends), 0.0)
        for _ in range(MOST_MOVES):
            losses, gradient = self._slope(x, conditional)
            short = losses > 1 - threshold
            if not threshold or not short.any():
                break
            x = x - size * gradient * short.view(-1, 1, 1, 1)
        else:
            _, gradient = self._slope(x, conditional)
        return x - size * gradient

    def _slope(self, x: Tensor, conditional: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Every picture's loss ``[B]`` for the latents ``x [B, C, H, W]``, and its gradient."""
        assert self._unet is not None
        with torch.enable_grad():
            x = x.detach().requires_grad_(True)
            with read_maps(self._unet, x.shape[-2:]) as maps:
                conditional(x)
            mean = torch.stack(maps).mean(dim=0)
            losses = loss(mean, self._subjects(mean.shape[-3]).to(mean))
            (gradient,) = torch.autograd.grad(losses.sum(), x)
        return losses.detach(), gradient


def excited(run: Run, x: Tensor, *, guidance: Excitement, eta: float = 0.0) -> Tensor:
    """DDIM of a latent that ``guidance``, by which the host predicts, moves before each step."""
    for step in run:
        guidance.begin(step.i, run.evaluations)
        eps = step.predict(x)
        assert guidance.latent is not None
        x = _next(run, step, guidance.latent, eps, eta)
    return x


def _next(run: Run, step: Step, x: Tensor, eps: Tensor, eta: float) -> Tensor:
    sigma_next, noise = step.advance(), run.host.randn_like(x)
    return ddim_step(step, x, eps, noise, alpha_map(step.sigma, None), alpha_map(sigma_next, None), eta)


def loss(maps: Tensor, subjects: Tensor) -> Tensor:
    """``max_s (1 - max A_s)`` of every picture, ``[B]``; 0 without a subject.

    ``maps`` ``[B, tokens, h, w]`` are attention maps, the start token's first. ``subjects`` is
    ``[B, tokens, T]``.
    """
    others = (SHARPNESS * maps[:, 1:]).softmax(dim=1)
    of_subjects = smoothed(torch.einsum("bnhw,bnt->bthw", others, subjects[:, 1:]))
    missing = 1 - of_subjects.amax(dim=(-2, -1))
    there = subjects[:, 1:].sum(dim=1) > 0
    return torch.where(there, missing, torch.zeros_like(missing)).amax(dim=1)


@contextmanager
def read_maps(unet: nn.Module, latent: Sequence[int]) -> Iterator[list[Tensor]]:
    """The attention maps of each call of ``unet`` inside, a ``[B, tokens, h, w]`` per layer, with
    what leads back to its input."""
    height, width = latent
    layers = token_map_layers(unet, height, width)
    maps: list[Tensor] = []
    queries: list[Tensor] = []

    def query(module: nn.Module, args: tuple, output: Tensor) -> None:
        queries[:] = [output]

    def key(attention: Any) -> Callable[[nn.Module, tuple, Tensor], None]:
        def hook(module: nn.Module, args: tuple, output: Tensor) -> None:
            q, k = (t.float().unflatten(-1, (attention.heads, -1)).transpose(1, 2) for t in (queries.pop(), output))
            with no_autocast(q.device):
                mean = (q @ k.transpose(-1, -2) * score_scale(attention)).softmax(dim=-1).mean(dim=1)
            maps.append(mean.transpose(1, 2).unflatten(-1, layers.size))

        return hook

    with ExitStack() as stack:
        for attention in layers.attentions:
            stack.callback(attention.to_q.register_forward_hook(query).remove)
            stack.callback(attention.to_k.register_forward_hook(key(attention)).remove)
        yield maps
