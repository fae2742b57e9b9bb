"""A paired comparison of a method with the ordinary picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import t


class Estimate(NamedTuple):
    """A mean and half the width of its 95 % confidence interval, which is infinite for a single
    value."""

    mean: float
    half: float


def mean(values: Sequence[float]) -> Estimate:
    """The mean of independent values, with its interval by Student's t."""
    values = np.asarray(values, dtype=float)
    n = len(values)
    half = t.ppf(0.975, n - 1) * values.std(ddof=1) / math.sqrt(n) if n > 1 else math.inf
    return Estimate(float(values.mean()), float(half))


def paired(own: Sequence[float], other: Sequence[float], pairs: Sequence[int]) -> Estimate:
    """How much higher a share is with one method than with another.

    ``own`` and ``other`` say how many of a prompt's ``pairs`` of pictures each method got right; a
    pair has the same seed. The pictures of one prompt are not independent, so each prompt's mean
    difference is one value.
    """
    own, other, pairs = (np.asarray(values, dtype=float) for values in (own, other, pairs))
    return mean((own - other) / pairs)
