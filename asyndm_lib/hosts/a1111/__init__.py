"""AUTOMATIC1111's WebUI."""

from __future__ import annotations

from functools import partial
from typing import Any

from modules import sd_unet

from ...errors import Unsupported
from ...samplers.table import LABELS, SAMPLERS
from ..common.adapter import Adapter
from ..common.attaching import check_sampler
from .call import Call
from .models import check_model
from .text import READER


def check_unet(p: Any) -> None:
    """Raise :class:`Unsupported` if another UNet (TensorRT's) stands in the model's place."""
    if sd_unet.current_unet is not None:
        label = sd_unet.current_unet.option.label
        raise Unsupported(f"the replaced UNet {label!r} is not supported; set SD Unet to None")


adapter = Adapter(
    call=Call,
    samplers=SAMPLERS,
    checks=(partial(check_sampler, SAMPLERS, LABELS), check_unet, lambda p: check_model(p.sd_model)),
    reader=READER,
)
