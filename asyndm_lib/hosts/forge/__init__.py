"""Forge: AUTOMATIC1111's page and samplers around another engine."""

from __future__ import annotations

import functools
from typing import Any

from ...samplers.table import LABELS, SAMPLERS
from ..common.attaching import attach as attach_call
from ..common.attaching import check_sampler, detach
from ..forge_family.models import check_model
from .call import Call
from .text import prompt_targets, typed_prompt

__all__ = ["attach", "check", "detach", "prompt_targets", "typed_prompt"]

attach = functools.partial(attach_call, Call, SAMPLERS)


def check(p: Any) -> None:
    """Raise :class:`Unsupported` if the sampler or the model of ``p``'s coming sampling call cannot run on maps."""
    check_model(p.sd_model)  # first: a sampler may be one that only its model has
    check_sampler(p, SAMPLERS, LABELS)
