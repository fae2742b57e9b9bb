"""Z-Sampling, zigzag diffusion sampling (Bai et al., ICLR 2025, arXiv 2412.10891).

Every step but the last goes down with strong guidance, up again with none, and down once more. The
difference between the two guidances leaves the prompt's meaning in the latent (the paper's
algorithm 1, with γ2 = 0). Up and down are DDIM without noise. Where the sampler adds noise, a
step's last way down does. A step takes three evaluations.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor

from ...clock.sigma_map import PixelMap
from ...run.run import Run
from ...run.step import Step
from ...samplers.timesteps import alpha_map, denoised_of
from .cfg import Guidance
from .ddim_step import ddim_step

INVERSION = 0.0
"""The guidance on the way up."""


def zigzag(run: Run, x: Tensor, *, guidance: Guidance, eta: float = 0.0) -> Tensor:
    """DDIM with a zigzag in every step. ``guidance`` is what the host's predictions are made
    with."""
    strong = guidance.scale
    for step in run:
        eps = step.predict(x)
        sigma_next = step.advance()
        noise = run.host.randn_like(x)
        a, a_next = alpha_map(step.sigma, None), alpha_map(sigma_next, None)
        if step.i < run.evaluations - 1:
            below = _move(step, x, eps, a, a_next)
            guidance.scale = INVERSION
            try:
                # DDIM's inversion: the noise at the lower point stands for that at the upper one.
                back = step.predict(below)
            finally:
                guidance.scale = strong
            x = _move(step, below, back, a_next, a)
            eps = step.predict(x)
        x = ddim_step(step, x, eps, noise, a, a_next, eta)
    return x


def _move(step: Step, x: Tensor, eps: Tensor, a: PixelMap, to: PixelMap) -> Tensor:
    """The latent after one move of DDIM without noise, from ``a`` to ``to``, in either
    direction."""
    denoised = step.per_pixel(partial(denoised_of, x, eps), a)
    return step.per_pixel(lambda a_to: a_to.sqrt() * denoised + (1 - a_to).sqrt() * eps, to)

