"""reForge: Forge's patched UNet, with AUTOMATIC1111's samplers and text encoders."""

from __future__ import annotations

from functools import partial
from typing import Any

from ...samplers.table import LABELS, SAMPLERS
from ..common.adapter import Adapter
from ..common.attaching import check_sampler, refuse_sampler
from ..forge_family.models import check_unet
from ..forge_family.text import READER
from .call import Call

OWN_LABELS = [label for label, (sampler, _) in LABELS.items() if "reforge" in sampler.hosts]
"""The labels of the samplers that reForge has as k-diffusion has them."""


def check_backend(p: Any) -> None:
    """Raise :class:`Unsupported` if the sampler of ``p``'s coming call is one of ComfyUI's."""
    if getattr(p.sampler.func, "__module__", "").startswith("ldm_patched."):
        # They have k-diffusion's names, but formulas, options and random numbers of their own.
        backend = "is not AUTOMATIC1111's own (in Settings, A1111 as the SD Sampling backend gives that back, "
        refuse_sampler(p, f"{backend}after a restart)", OWN_LABELS)


adapter = Adapter(
    call=Call,
    samplers=SAMPLERS,
    # The model first: a sampler may be one that only its model has.
    checks=(lambda p: check_unet(p.sd_model), check_backend, partial(check_sampler, SAMPLERS, OWN_LABELS)),
    reader=READER,
)
