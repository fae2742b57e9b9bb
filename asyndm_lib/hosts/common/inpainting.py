"""Blending with the start picture, each pixel at its own noise level."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ...models.parts.patching import replaced
from ...run.model_call import of_rows
from ...run.run import Run


@contextmanager
def blending(scripts: Any, run: Run, unit: Callable[[Tensor], Tensor], apart: bool = False) -> Iterator[None]:
    """Soft inpainting by each pixel's own noise level, inside the ``with`` only.

    ``scripts``: the host's script runner, or None. ``unit``: a map of sigmas in what the host tells
    scripts. ``apart``: its soft inpainting takes the same levels for all images, and so is given
    one image at a time.
    """
    if scripts is None:
        yield
        return
    original = scripts.on_mask_blend
    blend = functools.partial(_mask_blend, run, unit, functools.partial(_each, original) if apart else original)
    with replaced(scripts, "on_mask_blend", blend):
        yield


def _mask_blend(run: Run, unit: Callable[[Tensor], Tensor], original: Callable[..., None], p: Any, args: Any) -> None:
    """Blend as ``original`` does, with a level for every pixel.

    Soft inpainting keeps the more of the start picture the noisier a pixel is. It reads
    ``sigma[0]`` for all images.
    """
    here = run.evaluating
    if here is not None and args.sigma is not None and here.lagging.any():
        own = of_rows(args.sigma, here.sigma)
        args.sigma = torch.where(here.lagging, unit(here.sigma).to(own.dtype), own)[None]
    original(p, args)


def _each(original: Callable[..., None], p: Any, args: Any) -> None:
    """``original`` for one image after the other, where the levels are not the same for all."""
    if args.sigma is None or args.sigma.dim() < 4:
        original(p, args)
        return
    blended = []
    for image in range(len(args.current_latent)):
        one = copy.copy(args)
        for name in ("current_latent", "init_latent", "blended_latent"):
            batch = getattr(args, name)
            setattr(one, name, batch[image : image + 1] if len(batch) > 1 else batch)
        one.sigma = args.sigma[:, image]  # sigma[0] is [1, H, W], as a channel of the mask
        original(p, one)
        blended.append(one.blended_latent)
    args.blended_latent = torch.cat(blended)
