"""What k-diffusion's own functions compute on scalars, for their rounding."""

from __future__ import annotations

from k_diffusion.sampling import linear_multistep_coeff
from torch import Tensor, float64, tensor

from ...samplers.lms import ORDER


def lms_coefficients(sigmas: Tensor, order: int = ORDER) -> list[list[Tensor]]:
    """For every step over ``sigmas [N + 1]`` how much each slope counts, the newest first.

    ``order``: how many slopes count at most.
    """
    knots = sigmas.detach().cpu().numpy()
    counts = [min(i + 1, order) for i in range(len(knots) - 1)]
    return [
        [tensor(linear_multistep_coeff(count, knots, i, j), dtype=float64) for j in range(count)]
        for i, count in enumerate(counts)
    ]
