"""Forge: AUTOMATIC1111's page and samplers around another engine."""

from __future__ import annotations

from functools import partial

from ...samplers.table import LABELS, SAMPLERS
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
