"""The exponential step in ``t = -log sigma`` that DPM-Solver++ (Lu et al. 2022) and its relatives build on."""

from __future__ import annotations

from torch import Tensor


def t_of(sigma: Tensor) -> Tensor:
    return sigma.log().neg()


def sigma_of(t: Tensor) -> Tensor:
    return t.neg().exp()


def between(sigma: Tensor, to: Tensor, part: float) -> Tensor:
    """The noise level at ``part`` of the way in ``t``; element by element."""
    t = t_of(sigma)
    return sigma_of(t + (t_of(to) - t) * part)


def exponential_step(x: Tensor, denoised: Tensor, sigma: Tensor, to: Tensor, part: float | None = None) -> Tensor:
    """From ``sigma`` to ``to``, or ``part`` of the way, exact for a constant ``denoised``; element by element."""
    t, t_next = t_of(sigma), t_of(to)
    h = t_next - t
    if part is not None:
        h = h * part
        t_next = t + h
    return step_in_t(x, denoised, t, t_next, h)


def step_in_t(x: Tensor, denoised: Tensor, t: Tensor, t_next: Tensor, h: Tensor) -> Tensor:
    """:func:`exponential_step` from ``t`` to ``t_next``, ``h`` later."""
    return (sigma_of(t_next) / sigma_of(t)) * x - (-h).expm1() * denoised
