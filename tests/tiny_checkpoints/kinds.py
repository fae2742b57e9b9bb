"""The kinds of checkpoint, and the sizes of their parts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

TEXT_WIDTH = 64
OPEN_CLIP = {"arch": "ViT-S-32-alt", "width": 256, "layers": 10, "projection": 256}
"""The text half of OpenCLIP's smallest architecture. A WebUI brings the architecture and its
tokenizer."""

WIDTHS = {"demo": TEXT_WIDTH, "clip": TEXT_WIDTH, "open_clip": OPEN_CLIP["width"]}
SIZE_EMBEDDING = 8
"""How many numbers embed each number of SDXL's size conditioning."""


@dataclass(frozen=True)
class Kind:
    """One kind of checkpoint.

    ``text``: the text encoders, "demo" (CLIP with the embedded model's tokenizer), "clip" (with
    CLIP's own, as SDXL needs it beside OpenCLIP) and "open_clip". ``prediction``: eps or v.
    ``sizes``: how many numbers SDXL's label has beside the pooled text. ``latent``: its channels.
    ``extra_channels``: the channels that a picture is conditioned on beside the text.
    """

    text: tuple[str, ...] = ("demo",)
    prediction: str = "eps"
    sgm: bool = False
    sizes: tuple[tuple[str, int], ...] = ()
    latent: int = 4
    extra_channels: int = 0
    edit: bool = False
    seed: int = 0

    @cached_property
    def unet(self) -> dict[str, Any]:
        """The parameters of its UNetModel."""
        # 32 channels: GroupNorm(32) then has one channel a group, on which pass_input_through()
        # relies.
        common = {
            "in_channels": self.latent + self.extra_channels,
            "out_channels": self.latent,
            "model_channels": 32,
            "num_res_blocks": 2,
            "use_spatial_transformer": True,
            "use_checkpoint": False,
            "legacy": False,
        }
        width = sum(WIDTHS[name] for name in self.text)
        if self.sgm:
            return common | {
                "attention_resolutions": [4, 2],
                "channel_mult": [1, 2, 4],
                "num_head_channels": 32,
                "use_linear_in_transformer": True,
                "transformer_depth": 2,
                "context_dim": [width, width],
                "num_classes": "sequential",
                "adm_in_channels": OPEN_CLIP["projection"] + SIZE_EMBEDDING * sum(count for _, count in self.sizes),
            }
        return common | {
            "image_size": 32,
            "attention_resolutions": [4, 2, 1],
            "channel_mult": [1, 2, 4, 4],
            "num_heads": 2,
            "transformer_depth": 1,
            "context_dim": width,
        }


_SIZES = (("original_size_as_tuple", 2), ("crop_coords_top_left", 2))
_BASE = {"text": ("clip", "open_clip"), "sgm": True, "sizes": (*_SIZES, ("target_size_as_tuple", 2))}
KINDS = {
    "sd1": Kind(),
    "sd1-v": Kind(prediction="v"),
    # Has the YAML of sd1: a WebUI then loads the one's weights into the other's model.
    "sd1.ckpt": Kind(seed=1),
    "sd1-inpainting": Kind(extra_channels=5),
    "sd1-edit": Kind(extra_channels=4, edit=True),
    "sd2-v": Kind(("open_clip",), "v"),
    "sdxl": Kind(**_BASE),
    "sdxl-inpainting": Kind(**_BASE, extra_channels=5),
    "sdxl-refiner": Kind(("open_clip",), sgm=True, sizes=(*_SIZES, ("aesthetic_score", 1))),
}
AUTOENCODER = {
    "double_z": True,
    "z_channels": 4,
    "resolution": 256,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 32,
    "ch_mult": [1, 1, 1, 1],
    "num_res_blocks": 1,
    "attn_resolutions": [],
    "dropout": 0.0,
}
