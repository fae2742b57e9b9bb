"""Blending with the start picture, each pixel at its own noise level."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ...patching import replaced
from ...run import Run


@contextmanager
def blending(scripts: Any, run: Run, unit: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Soft inpainting by each pixel's own noise level, inside the ``with`` only.

    ``scripts``: the host's script runner, or None. ``unit``: a map of sigmas in what the host tells scripts.
    """
    if scripts is None:
        yield
        return
    blend = functools.partial(_mask_blend, run, unit, scripts.on_mask_blend)
    with replaced(scripts, "on_mask_blend", blend):
        yield


def _mask_blend(run: Run, unit: Callable[[Tensor], Tensor], original: Callable[..., None], p: Any, args: Any) -> None:
    """Soft inpainting keeps the more of the start picture the noisier a pixel is; of all it reads ``sigma[0]``."""
    here = run.evaluating
    if here is not None and args.sigma is not None and here.lagging.any():
        own = args.sigma.view(-1, 1, 1, 1)
        args.sigma = torch.where(here.lagging, unit(here.sigma).to(own.dtype), own)[None]
    original(p, args)
