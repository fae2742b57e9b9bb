"""The hosts' models that can run on sigma maps."""

from __future__ import annotations

from typing import Any

from torch import nn

from ... import models
from ...errors import Unsupported
from ...models import unet


def check_model(sd_model: Any) -> None:
    """Raise :class:`errors.Unsupported` for a model that is no UNet: these hosts' transformers are
    called in other ways.
    """
    model = unet_of(sd_model)
    if models.find(model) is not unet.FAMILY:
        raise Unsupported(
            f"transformer models such as Flux and Stable Diffusion 3 (here {type(model).__name__}) are not supported; "
            "use a Stable Diffusion 1, 2 or XL checkpoint"
        )


def unet_of(sd_model: Any) -> nn.Module:
    return sd_model.forge_objects.unet.model.diffusion_model


def steady(unet: Any) -> bool:
    """Whether what the layers of the host's patched ``unet`` compute changes with their parameters
    alone.

    A LoRA may act where a layer is called, or be written into a parameter's own memory.
    """
    on_the_fly = any(online for *_, online in getattr(unet, "lora_patches", ()))
    if hasattr(unet, "has_online_lora"):
        on_the_fly = on_the_fly or unet.has_online_lora()
    return not (on_the_fly or getattr(unet, "weight_inplace_update", False))
