"""Forge Neo: Forge with samplers of its own, and flow models on SDXL's UNet."""

from __future__ import annotations

from functools import partial

from ...samplers.neo.table import LABELS, SAMPLERS
from ..common.adapter import Adapter
from ..common.attaching import check_sampler
from .call import Call
from .models import check_model
from .text import READER

adapter = Adapter(
    call=Call,
    samplers=SAMPLERS,
    # The model first: a sampler may be one that only its model has.
    checks=(lambda p: check_model(p.sd_model), partial(check_sampler, SAMPLERS, LABELS)),
    reader=READER,
)
