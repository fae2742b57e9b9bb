"""reForge: Forge's patched UNet, with AUTOMATIC1111's samplers and text encoders."""

from __future__ import annotations

import functools
from typing import Any

from ...samplers.table import LABELS, SAMPLERS
from ..common.attaching import attach as attach_call
from ..common.attaching import check_sampler, detach, refuse_sampler
from ..forge_family.models import check_model
from .call import Call
from .text import prompt_targets, typed_prompt

__all__ = ["attach", "check", "detach", "prompt_targets", "typed_prompt"]

attach = functools.partial(attach_call, Call, SAMPLERS)

FORGES = ("HeunPP2", "IPNDM", "IPNDM_V", "DEIS", "DDPM")
"""Of our labels those for which reForge has functions of ComfyUI's."""


def check(p: Any) -> None:
    """Raise :class:`Unsupported` if the sampler or the model of ``p``'s coming sampling call cannot run on maps."""
    check_model(p.sd_model)  # first: a sampler may be one that only its model has
    labels = [label for label in LABELS if label not in FORGES]
    if getattr(p.sampler.func, "__module__", "").startswith("ldm_patched."):
        # They have k-diffusion's names, but formulas, options and random numbers of their own.
        backend = "is not AUTOMATIC1111's own (in Settings, A1111 as the SD Sampling backend gives that back, "
        refuse_sampler(p, f"{backend}after a restart)", labels)
    check_sampler(p, SAMPLERS, labels)
