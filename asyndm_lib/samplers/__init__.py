"""k-diffusion's samplers on a sigma map.

Every sampler is one function ``(run, x, **options) -> x``: it walks the steps of a :class:`run.Run`
and states the host's update once, as a formula of noise levels; ``step.per_pixel`` evaluates it on
maps and on the host's scalars. Options have k-diffusion's names; an option of the host's sampler that
a function here does not take is a bug of the table below.

Adding a sampler: write its function, and enter it under the ``__name__`` of the host's function.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from .ddim import ddim
from .dpmpp_2m import dpmpp_2m
from .euler import euler
from .euler_ancestral import euler_ancestral

SAMPLERS: dict[str, Callable[..., Tensor]] = {
    "sample_euler": euler,
    "sample_euler_ancestral": euler_ancestral,
    "sample_dpmpp_2m": dpmpp_2m,
    "ddim": ddim,
}

LABELS: dict[str, str] = {
    "Euler": "sample_euler",
    "Euler a": "sample_euler_ancestral",
    "DPM++ 2M": "sample_dpmpp_2m",
    "DDIM": "ddim",
}
"""The names under which the WebUIs show them."""
