"""Per-pixel pre-conditioning of the hosts' models (docs/METHOD.md, section 3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...models.parts.patching import replaced
from ...run.run import Run
from ..common.per_pixel import at_single_pixels


@contextmanager
def preconditioned(predictor: Any, run: Run) -> Iterator[None]:
    """Inside the ``with`` the scalings of ``predictor`` go by each pixel's own noise level.

    They do so while ``run`` evaluates.
    They serve the UNet, the built-in ControlNet and the start picture's noise in inpainting. Pixels
    that do not lag keep, to the bit, what the predictor gives for their row.
    """
    with ExitStack() as stack:
        for name, scaled in (
            ("calculate_input", _scaled),
            ("calculate_denoised", _scaled),
            ("noise_scaling", _noised),
        ):
            stack.enter_context(replaced(predictor, name, partial(scaled, run, getattr(predictor, name))))
        yield


def _scaled(run: Run, original: Callable[..., Tensor], sigma: Tensor, *maps: Tensor) -> Tensor:
    """``original(sigma [rows], *maps [rows, C, H, W])``; the rows are whole batches, one by one."""
    own = original(sigma, *maps)
    here = run.evaluating
    if here is None or own.shape[-2:] != here.sigma.shape[-2:] or len(own) % len(here.sigma):
        return own
    batches = len(own) // len(here.sigma)
    levels, lagging = (torch.cat([map] * batches) for map in (here.sigma, here.lagging))
    return torch.where(lagging, at_single_pixels(original, levels, *maps).to(own.dtype), own)


def _noised(
    run: Run, original: Callable[..., Tensor], sigma: Tensor, noise: Tensor, picture: Tensor, *rest: Any, **more: Any
) -> Tensor:
    own = original(sigma, noise, picture, *rest, **more)
    here = run.evaluating
    if here is None or own.shape[-2:] != here.sigma.shape[-2:] or len(own) != len(here.sigma):
        return own

    def formula(sigma: Tensor, noise: Tensor, picture: Tensor) -> Tensor:
        return original(sigma.view(-1, 1, 1, 1), noise, picture, *rest, **more)

    picture = picture.expand_as(own)
    return torch.where(here.lagging, at_single_pixels(formula, here.sigma, noise, picture).to(own.dtype), own)
