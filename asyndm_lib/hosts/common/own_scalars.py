"""What k-diffusion's own functions compute on scalars, for their rounding."""

from __future__ import annotations

from k_diffusion.sampling import linear_multistep_coeff
from torch import Tensor, float64, tensor

from ...samplers.lms import ORDER


def lms_coefficients(sigmas: Tensor) -> list[list[Tensor]]:
    """For every step over ``sigmas [N + 1]`` how much each slope counts, the newest first."""
    knots = sigmas.detach().cpu().numpy()
    orders = [min(i + 1, ORDER) for i in range(len(knots) - 1)]
    return [
        [tensor(linear_multistep_coeff(order, knots, i, j), dtype=float64) for j in range(order)]
        for i, order in enumerate(orders)
    ]
