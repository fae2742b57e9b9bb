"""Per-pixel pre-conditioning of a host's denoiser (docs/METHOD.md, section 3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...clock.schedule import alpha
from ...models.parts.patching import replaced
from ...run.model_call import Rows, of_rows


def eps_of_v(x: Tensor, v: Tensor, sigma: Tensor) -> Tensor:
    """The noise in a variance-preserving ``x`` of velocity ``v``; ``sigma`` broadcasts to them."""
    a = alpha(sigma)
    return a.sqrt() * v + (1 - a).sqrt() * x


def at_single_pixels(formula: Callable[..., Tensor], sigma: Tensor, *maps: Tensor) -> Tensor:
    """A host's ``formula(sigma [n], *maps [n, C, H, W])`` with a sigma for every pixel.

    ``sigma``: ``[n, 1, H, W]``, as the latents have it. The result is in the hosts' order in
    memory, by which their convolutions round.
    """
    n, _, *size = sigma.shape
    pixels = [map.movedim(1, -1).reshape(sigma.numel(), -1, 1, 1) for map in maps]
    return formula(sigma.flatten(), *pixels).reshape(n, *size, -1).movedim(-1, 1).contiguous()


def at_own_levels(formula: Callable[..., Tensor], own: Tensor, here: Rows, *maps: Tensor) -> Tensor:
    """``own``, a host's ``formula(sigma [n], *maps)``, with the lagging pixels at their own sigma.

    The other pixels are, to the bit, those of ``own``.
    """
    return torch.where(here.lagging, at_single_pixels(formula, here.sigma, *maps).to(own.dtype), own)


@contextmanager
def scalings(denoiser: Any, here: Rows | None) -> Iterator[None]:
    """Inside the ``with`` a k-diffusion ``denoiser`` scales lagging pixels by their own sigma.

    ``denoiser`` predicts eps or v. The ``with`` is around one call of it. ``here``: what
    :meth:`run.Run.rows` gave for the same rows. The other pixels take their row's sigma, and so
    keep, to the bit, the value that the denoiser has for it: its factors are sums, products,
    quotients and square roots, which do not round by the shape that they are computed in. Does
    nothing where ``here`` is None or the denoiser scales nothing.
    """
    own = getattr(denoiser, "get_scalings", None)
    if here is None or own is None:
        yield
        return

    with replaced(denoiser, "get_scalings", partial(_per_pixel, here, own)):
        yield


def _per_pixel(here: Rows, own: Callable[[Tensor], Sequence[Tensor]], sigma: Tensor) -> Sequence[Tensor]:
    """``sigma [n]`` → the denoiser's factors, ``[n, 1, H, W]`` each."""
    return own(torch.where(here.lagging, here.sigma.to(sigma.dtype), of_rows(sigma, here.sigma)))
