"""AUTOMATIC1111's WebUI."""

from __future__ import annotations

import functools
from typing import Any

from modules import sd_unet, shared

from ...errors import Unsupported
from ...samplers.table import LABELS, SAMPLERS
from ..common.attaching import attach as attach_call
from ..common.attaching import check_sampler, detach
from .call import Call
from .models import check_model
from .text import prompt_targets, typed_prompt

__all__ = ["attach", "check", "detach", "prompt_targets", "typed_prompt"]

attach = functools.partial(attach_call, Call, SAMPLERS)


def check(p: Any) -> None:
    """Raise :class:`Unsupported` if the sampler or the model of ``p``'s coming sampling call cannot run on maps."""
    check_sampler(p, SAMPLERS, LABELS)
    if sd_unet.current_unet is not None:
        label = sd_unet.current_unet.option.label
        raise Unsupported(f"the replaced UNet {label!r} is not supported; set SD Unet to None")
    check_model(shared.sd_model)
