"""Paired comparison of a method with the ordinary picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import t


class Estimate(NamedTuple):
    """A mean and half the width of its 95 % confidence interval (infinite from a single value)."""

    mean: float
    half: float


def mean(values: Sequence[float]) -> Estimate:
    """Of values that are independent of each other, by Student's t."""
    values = np.asarray(values, dtype=float)
    n = len(values)
    half = t.ppf(0.975, n - 1) * values.std(ddof=1) / math.sqrt(n) if n > 1 else math.inf
    return Estimate(float(values.mean()), float(half))


def paired(own: Sequence[float], other: Sequence[float], pairs: Sequence[int]) -> Estimate:
    """How much higher a share is with one method than with another.

    Per prompt: ``own`` and ``other``, how many of its ``pairs`` of pictures (of the same seed) each got right. The
    pictures of one prompt are no independent draws, so each prompt's mean difference is one value.
    """
    own, other, pairs = (np.asarray(values, dtype=float) for values in (own, other, pairs))
    return mean((own - other) / pairs)
