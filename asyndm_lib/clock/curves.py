"""Curves: how far a prompt-related cell advances in one step.

To add a curve, write its rule as a function like :func:`piecewise_linear` and name it in ``RULES``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the names of the curves are asked for where torch is not
    from torch import Tensor

Rule = Callable[["Tensor", "Tensor", int, int], "Tensor"]


def linear(u: Tensor, r: int, m: int) -> Tensor:
    """The next progress of an unrelated cell, with ``r`` advances left of ``m``."""
    return u + (m - u) / r


def quadratic(u: Tensor, k: Tensor, r: int, m: int) -> Tensor:
    """A parabola of curvature ``-k/m²``; for ``k = 1`` and always related the paper's ``T -
    i²/T``.
    """
    return linear(u, r, m) - k * (r - 1) / m


def piecewise_linear(u: Tensor, k: Tensor, r: int, m: int) -> Tensor:
    """``1 - k`` a step until the faster line of slope ``1 + k`` that ends at ``m`` is met."""
    return (u + 1 - k).maximum(m - (1 + k) * (r - 1))


def exponential(u: Tensor, k: Tensor, r: int, m: int) -> Tensor:
    """``y = a·exp(λ(x - x0)) + b·x + c`` through the state and the end.

    There ``λ = 1/m`` and ``b = -(1 - k)T/m``. The two conditions fix ``a·exp(-λ·x0)`` and ``c``;
    what the slope ``1 - k`` leaves to be made up is spread over the remaining steps in proportion
    to ``exp``.
    """
    share = math.expm1(1 / m) / math.expm1(r / m)
    return u + (1 - k) + (m - u - (1 - k) * r) * share


RULES: dict[str, Rule] = {
    "quadratic": quadratic,
    "piecewise linear": piecewise_linear,
    "exponential": exponential,
}
CURVES = tuple(RULES)
