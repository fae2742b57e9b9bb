"""The hosts' models that can run on sigma maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from ... import models
from ...errors import Unsupported
from ...models import unet
from ...models.family import Family


def check_model(sd_model: Any, families: Sequence[Family] = models.FAMILIES) -> None:
    """Raise :class:`errors.Unsupported` for a model of none of ``families``, or whose layers the
    method cannot reach.
    """
    model = unet_of(sd_model)
    if models.find(model) not in families:
        known = "; ".join(family.name for family in families)
        raise Unsupported(
            f"models of this kind (here {type(model).__name__}) are not supported; use a checkpoint of one of these: "
            f"{known}"
        )
    models.of(model)


def check_unet(sd_model: Any) -> None:
    """The same where the host calls its transformers in other ways."""
    check_model(sd_model, (unet.FAMILY,))


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
