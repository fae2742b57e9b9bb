"""Forge Classic: the first Forge, with AUTOMATIC1111's samplers and text encoders around ComfyUI's
engine."""

from __future__ import annotations

from functools import partial

from ...samplers.table import CLASSIC, LABELS
from ..common.adapter import Adapter
from ..common.attaching import check_sampler
from ..forge_family.models import check_unet
from ..forge_family.text import READER
from .call import Call

adapter = Adapter(
    call=Call,
    samplers=CLASSIC,
    # The model first: a sampler may be one that only its model has.
    checks=(lambda p: check_unet(p.sd_model), partial(check_sampler, CLASSIC, LABELS)),
    reader=READER,
)
