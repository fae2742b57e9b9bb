"""UniPC over k-diffusion's sigmas, as Forge Neo has it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ...run.run import Run
from ...run.step import Step
from ..euler import to_d
from ..row import Sampler
from ..unipc import ORDER, Marginals, unipc_of

LAST_SIGMA = 0.001
"""Where the host's schedule ends instead of at 0, which has no half log SNR."""


def unipc(run: Run, x: Tensor, *, variant: str = "bh1", marginals: Sequence[Marginals] | None = None) -> Tensor:
    """UniPC of Zhao et al. (2023), over two steps or more to :data:`LAST_SIGMA`.

    ``variant``: "bh1" or "bh2". ``marginals`` (one per noise level and its last): the host's own
    scalars.
    """
    (descent,) = run.host.descents
    first, last = descent.scalars[0], descent.scalars[-1]
    order = min(ORDER, run.evaluations - 1)
    x = unipc_of(run, x / (1.0 + first**2.0) ** 0.5, _noise_in, order, variant, True, marginals, late=False)
    return x / ((1 / (1 + last**2)) ** 0.5 if marginals is None else marginals[-1].alpha)


def _noise_in(step: Step, x: Tensor) -> Tensor:
    """The noise in ``x``, which is in variance-preserving scale.

    The model takes k-diffusion's scale and gives the picture.
    """
    scaled = step.per_pixel(lambda sigma: x * (sigma**2 + 1.0) ** 0.5, step.sigma)
    denoised = step.predict(scaled)
    return step.per_pixel(lambda sigma: to_d(scaled, denoised, sigma), step.sigma)


ROWS = (Sampler("sample_unipc", unipc, {"UniPC": {}}, ("neo",), scalars="marginals", least_steps=2),)
