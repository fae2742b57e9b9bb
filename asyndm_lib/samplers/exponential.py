"""The exponential step in ``t = -log sigma``.

DPM-Solver++ (Lu et al. 2022) and its relatives build on it.
"""

from __future__ import annotations

from torch import Tensor


def t_of(sigma: Tensor) -> Tensor:
    return sigma.log().neg()


def sigma_of(t: Tensor) -> Tensor:
    return t.neg().exp()


def between(sigma: Tensor, to: Tensor, r: float) -> Tensor:
    """The noise level at ``r`` of the way from ``sigma`` to ``to`` in ``t``; element by element."""
    t = t_of(sigma)
    return sigma_of(t + (t_of(to) - t) * r)


def exponential_step(x: Tensor, denoised: Tensor, t: Tensor, t_next: Tensor, h: Tensor) -> Tensor:
    """``x`` at ``t_next``, ``h`` after ``t``; exact for a constant ``denoised``."""
    return (sigma_of(t_next) / sigma_of(t)) * x - (-h).expm1() * denoised
