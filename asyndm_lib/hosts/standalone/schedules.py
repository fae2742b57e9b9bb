"""k-diffusion's noise schedules by the WebUIs' names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the names of the schedules are asked for where torch is not
    from torch import Tensor

    from ...samplers.row import Sampler

SCHEDULES: dict[str, str | None] = {
    "automatic": None,
    "uniform": None,
    "karras": "get_sigmas_karras",
    "exponential": "get_sigmas_exponential",
    "polyexponential": "get_sigmas_polyexponential",
}
"""Name → the function ``(n, sigma_min, sigma_max)`` of ``k_diffusion.sampling``.

None stands for evenly spaced timesteps.
"""

def make_sigmas(denoiser: Any, name: str, sampler: Sampler, steps: int) -> Tensor:
    """The sigmas of ``steps`` evaluations and the final 0, ``[steps + 1]``.

    They lie within the range of ``denoiser``. ``name``: one of :data:`SCHEDULES`; "automatic" is
    what it is for the sampler in the WebUIs.
    """
    import torch

    name = sampler.schedule if name == "automatic" else name
    if sampler.discards:
        longer = _sigmas(denoiser, name, steps + 1)
        return torch.cat([longer[:-2], longer[-1:]])
    return _sigmas(denoiser, name, steps)


def _sigmas(denoiser: Any, name: str, steps: int) -> Tensor:
    function = SCHEDULES[name]
    if function is None:
        return denoiser.get_sigmas(steps)
    # Here, because the command line's help wants the names alone, and this import takes a while.
    from k_diffusion import sampling

    sigma_min, sigma_max = denoiser.sigma_min.item(), denoiser.sigma_max.item()
    return getattr(sampling, function)(steps, sigma_min, sigma_max, device=denoiser.sigmas.device)
