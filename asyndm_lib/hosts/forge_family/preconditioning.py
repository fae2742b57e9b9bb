"""Per-pixel pre-conditioning of the hosts' models (docs/METHOD.md, section 3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...models.parts.patching import replaced
from ...run.model_call import Rows
from ...run.run import Run
from ..common.per_pixel import at_own_levels

Levels = Callable[[Tensor, torch.Size], "Rows | None"]


@contextmanager
def preconditioned(predictor: Any, run: Run, levels: Levels) -> Iterator[None]:
    """Inside the ``with`` the scalings of ``predictor`` go by each pixel's own noise level.

    They do so while ``run`` evaluates. ``levels(sigma [n], shape)`` has those of the pictures that
    it is asked for.
    They serve the UNet, the built-in ControlNet and, where the host asks for it, the start
    picture's noise in inpainting. Pixels that do not lag keep, to the bit, what the predictor gives
    for their row.
    """
    with ExitStack() as stack:
        for name, scaled in (
            ("calculate_input", partial(_scaled, levels)),
            ("calculate_denoised", partial(_scaled, levels)),
            ("noise_scaling", partial(_noised, run)),
        ):
            if hasattr(predictor, name):  # ComfyUI's of Forge Classic scales no noise
                stack.enter_context(replaced(predictor, name, partial(scaled, getattr(predictor, name))))
        yield


def _scaled(levels: Levels, original: Callable[..., Tensor], sigma: Tensor, *maps: Tensor) -> Tensor:
    """``original(sigma [n], *maps [n, C, H, W])``."""
    own = original(sigma, *maps)
    here = levels(sigma, own.shape)
    return own if here is None else at_own_levels(original, own, here, *maps)


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
    return at_own_levels(formula, own, here, noise, picture)
