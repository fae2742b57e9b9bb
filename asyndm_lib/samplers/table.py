"""The hosts' samplers on a sigma map.

Every sampler is one function ``(run, x, **options) -> x``: it walks the steps of a :class:`run.Run`
and states the host's update once, as a formula of noise levels; ``step.per_pixel`` evaluates it on
maps and on the host's scalars. Options have k-diffusion's names; an option of the host's sampler that
a function here does not take is a bug of the table below.

Adding a sampler: write its function, and enter it under the ``__name__`` of the host's function and its label.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, device

from .ddim import ddim, ddim_cfgpp
from .ddpm import ddpm
from .deis import deis
from .dpm_2 import dpm_2, dpm_2_ancestral
from .dpm_fast import dpm_fast, dpm_fast_descents
from .dpmpp_2m import dpmpp_2m
from .dpmpp_2m_sde import dpmpp_2m_sde
from .dpmpp_2s_ancestral import dpmpp_2s_ancestral
from .dpmpp_3m_sde import dpmpp_3m_sde
from .dpmpp_sde import dpmpp_sde
from .euler import euler
from .euler_ancestral import euler_ancestral
from .heun import heun, restart, restart_descents
from .heunpp2 import heunpp2
from .ipndm import ipndm, ipndm_v
from .lcm import lcm
from .lms import lms
from .plms import plms
from .unipc import unipc

SAMPLERS: dict[str, Callable[..., Tensor]] = {
    "sample_dpmpp_2m": dpmpp_2m,
    "sample_dpmpp_sde": dpmpp_sde,
    "sample_dpmpp_2m_sde": dpmpp_2m_sde,
    "sample_dpmpp_2s_ancestral": dpmpp_2s_ancestral,
    "sample_dpmpp_3m_sde": dpmpp_3m_sde,
    "sample_euler_ancestral": euler_ancestral,
    "sample_euler": euler,
    "sample_lms": lms,
    "sample_heun": heun,
    "sample_dpm_2": dpm_2,
    "sample_dpm_2_ancestral": dpm_2_ancestral,
    "sample_dpm_fast": dpm_fast,
    "restart_sampler": restart,
    "ddim": ddim,
    "ddim_cfgpp": ddim_cfgpp,
    "plms": plms,
    "unipc": unipc,
    "sample_lcm": lcm,
    "sample_heunpp2": heunpp2,
    "sample_ipndm": ipndm,
    "sample_ipndm_v": ipndm_v,
    "sample_deis": deis,
    "sample_ddpm": ddpm,
}

LABELS: dict[str, tuple[str, dict[str, Any]]] = {
    "DPM++ 2M": ("sample_dpmpp_2m", {}),
    "DPM++ SDE": ("sample_dpmpp_sde", {}),
    "DPM++ 2M SDE": ("sample_dpmpp_2m_sde", {}),
    "DPM++ 2M SDE Heun": ("sample_dpmpp_2m_sde", {"solver_type": "heun"}),
    "DPM++ 2S a": ("sample_dpmpp_2s_ancestral", {}),
    "DPM++ 3M SDE": ("sample_dpmpp_3m_sde", {}),
    "Euler a": ("sample_euler_ancestral", {}),
    "Euler": ("sample_euler", {}),
    "LMS": ("sample_lms", {}),
    "Heun": ("sample_heun", {}),
    "DPM2": ("sample_dpm_2", {}),
    "DPM2 a": ("sample_dpm_2_ancestral", {}),
    "DPM fast": ("sample_dpm_fast", {}),
    "Restart": ("restart_sampler", {}),
    "DDIM": ("ddim", {}),
    "DDIM CFG++": ("ddim_cfgpp", {}),
    "PLMS": ("plms", {}),
    "UniPC": ("unipc", {}),
    "LCM": ("sample_lcm", {}),
    "HeunPP2": ("sample_heunpp2", {}),
    "IPNDM": ("sample_ipndm", {}),
    "IPNDM_V": ("sample_ipndm_v", {}),
    "DEIS": ("sample_deis", {}),
    "DDPM": ("sample_ddpm", {}),
}
"""The names under which the WebUIs show them (those from HeunPP2 on: Forge), and the options that a name stands for."""

Descents = Callable[[dict[str, Any], device], list[Tensor]]


def _given(options: dict[str, Any], device: device) -> list[Tensor]:
    return [options.pop("sigmas")]


_DESCENTS: dict[str, Descents] = {"sample_dpm_fast": dpm_fast_descents, "restart_sampler": restart_descents}


def descents(name: str, options: dict[str, Any], device: device) -> list[Tensor]:
    """The ways down that the sampler ``name`` goes by the host's ``options``, each with the sigma at its end.

    Takes out of ``options`` what describes the schedule. ``device``: of the latent.
    """
    return _DESCENTS.get(name, _given)(options, device)
