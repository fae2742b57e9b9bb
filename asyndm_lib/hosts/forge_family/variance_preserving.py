"""The hosts' timestep samplers: ``x`` is in variance-preserving scale, and the model gives eps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...models.parts.patching import replaced
from ...run.model_call import of_rows
from ...run.run import Run


@contextmanager
def in_sigma_space(model: Any, run: Run) -> Iterator[None]:
    """Inside the ``with`` the denoiser takes ``x``, and gives eps, by each pixel's own noise level.

    It scales both by one sigma a picture. For lagging pixels the ratio to their own is put right
    before and after, so that masks, guidance and previews within meet the latent and the picture
    that are really there.
    """
    with replaced(model, "forward", partial(_forward, model, run, model.forward)):
        yield


def _forward(
    model: Any, run: Run, original: Callable[..., Tensor], x: Tensor, timestep: Tensor, **kwargs: Any
) -> Tensor:
    here = run.evaluating
    if here is None:
        return original(x, timestep, **kwargs)
    own, levels, lagging = of_rows(told_sigma(model, timestep), here.sigma), here.sigma, here.lagging
    scale = ((levels**2 + 1) / (own**2 + 1)).sqrt()
    eps = original(torch.where(lagging, (x * scale).to(x.dtype), x), timestep, **kwargs)
    ratio = (own / levels).to(eps.dtype)
    if getattr(model, "need_last_noise_uncond", False):  # Forge Classic has no CFG++
        uncond = model.last_noise_uncond
        model.last_noise_uncond = torch.where(lagging, uncond * ratio, uncond)
    return torch.where(lagging, eps * ratio, eps)


def told_sigma(model: Any, timestep: Tensor) -> Tensor:
    """The sigma that the denoiser takes for a timestep."""
    alphas_cumprod = model.inner_model.inner_model.alphas_cumprod
    sigmas = ((1 - alphas_cumprod) / alphas_cumprod) ** 0.5
    return sigmas[timestep.round().long().clip(0, len(sigmas) - 1)]
