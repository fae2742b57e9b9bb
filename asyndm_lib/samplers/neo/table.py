"""The samplers of Forge Neo on a sigma map, where they are not those of the other WebUIs.

Neo has k-diffusion as ComfyUI carries it on: written in half log SNR, so that it holds for flow models too (for these
``flow`` is to be True where a function takes it), and with other last steps and draws of noise under the old names.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor

from ..ddim import ddim
from ..dpm_2 import dpm_2
from ..dpmpp_2m import dpmpp_2m
from ..euler import euler
from ..heun import heun, restart
from ..lcm import lcm
from ..lms import lms
from ..plms import plms
from .cfgpp import dpmpp_2m_cfgpp, euler_ancestral_cfgpp, euler_cfgpp
from .dpmpp_2m_sde import dpmpp_2m_sde
from .dpmpp_2s_ancestral_rf import dpmpp_2s_ancestral_rf
from .dpmpp_3m_sde import dpmpp_3m_sde
from .dpmpp_sde import dpmpp_sde
from .er_sde import er_sde
from .euler_ancestral import euler_ancestral
from .kohaku_lonyu_yog import kohaku_lonyu_yog
from .res_multistep import res_multistep
from .unipc import unipc

SAMPLERS: dict[str, Callable[..., Tensor]] = {
    "sample_dpmpp_2m": dpmpp_2m,
    "sample_dpmpp_sde": dpmpp_sde,
    "sample_dpmpp_2m_sde": dpmpp_2m_sde,
    "sample_dpmpp_3m_sde": dpmpp_3m_sde,
    "sample_dpmpp_2s_ancestral_RF": dpmpp_2s_ancestral_rf,
    "sample_euler_ancestral": euler_ancestral,
    "sample_euler": partial(euler, always=False),
    "sample_er_sde": er_sde,
    "sample_lcm": lcm,
    "sample_lms": partial(lms, ends_at_prediction=True),
    "sample_heun": partial(heun, always=False),
    "sample_dpm_2": partial(dpm_2, always=False),
    "sample_res_multistep": res_multistep,
    "sample_Kohaku_LoNyu_Yog": kohaku_lonyu_yog,
    "restart_sampler": restart,
    "sample_unipc": unipc,
    "ddim": ddim,
    "plms": plms,
    "sample_dpmpp_2m_cfg_pp": dpmpp_2m_cfgpp,
    "sample_euler_ancestral_cfg_pp": euler_ancestral_cfgpp,
    "sample_euler_cfg_pp": euler_cfgpp,
}
"""By the ``__name__`` of the host's function."""

LABELS: dict[str, str] = {
    "DPM++ 2M": "sample_dpmpp_2m",
    "DPM++ SDE": "sample_dpmpp_sde",
    "DPM++ 2M SDE": "sample_dpmpp_2m_sde",
    "DPM++ 3M SDE": "sample_dpmpp_3m_sde",
    "DPM++ 2s a RF": "sample_dpmpp_2s_ancestral_RF",
    "Euler a": "sample_euler_ancestral",
    "Euler": "sample_euler",
    "ER SDE": "sample_er_sde",
    "LCM": "sample_lcm",
    "LMS": "sample_lms",
    "Heun": "sample_heun",
    "DPM2": "sample_dpm_2",
    "Res Multistep": "sample_res_multistep",
    "Kohaku LoNyu Yog": "sample_Kohaku_LoNyu_Yog",
    "Restart": "restart_sampler",
    "UniPC": "sample_unipc",
    "DDIM": "ddim",
    "PLMS": "plms",
    "DPM++ 2M CFG++": "sample_dpmpp_2m_cfg_pp",
    "Euler a CFG++": "sample_euler_ancestral_cfg_pp",
    "Euler CFG++": "sample_euler_cfg_pp",
}
"""The names under which Neo shows them."""
