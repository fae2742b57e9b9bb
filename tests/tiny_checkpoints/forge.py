"""Tiny checkpoints that Forge and its relatives know by their weights, and configurations cut down
to their size.

Forge knows a family by the width of its feature maps and text vectors and by the depths of its
transformers on the way down. The text encoders and the autoencoder are made as its configurations
say, and :func:`configurations` writes smaller ones.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from . import config, text, unet
from .kinds import AUTOENCODER, Kind

TEXT_LAYERS, MLP = 2, 2
"""The number of layers of every text encoder, and the factor by which the hidden ones are wider."""
REFORGES_LAYERS = 3
"""The number of layers in reForge, which takes the last but one only where another comes before
it."""
REFORGES_XL = (
    Path("repositories", "generative-models", "configs", "inference", "sd_xl_base.yaml"),
    Path("configs", "sd_xl_inpaint.yaml"),
)
"""reForge's own configurations of SDXL and of inpainting checkpoints of it."""


@dataclass(frozen=True)
class ForgeKind(Kind):
    """A kind of checkpoint for Forge.

    ``width``: of all text vectors together. ``channels``: of the feature maps, times ``least``.
    ``sgm``: whether it is of the SDXL family. ``configuration``: the folder among the WebUI's
    configurations, for a kind that not all WebUIs know. ``depths``: of SDXL's transformers on the
    way down, by the number of their input block. ``label``: how many numbers SDXL's pooled text and
    sizes make.
    """

    width: int = 768
    least: int = 320
    channels: tuple[int, ...] = (1, 1, 1)
    configuration: str = ""
    depths: tuple[tuple[int, int], ...] = ()
    label: int = 0

    @cached_property
    def unet(self) -> dict[str, Any]:
        common = {
            "in_channels": self.latent + self.extra_channels,
            "out_channels": self.latent,
            "model_channels": self.least,
            "use_spatial_transformer": True,
            "use_checkpoint": False,
            "legacy": False,
            "context_dim": self.width,
            "channel_mult": list(self.channels),
            "transformer_depth": 1,
        }
        if self.sgm:
            return common | {
                "num_res_blocks": 2,
                "attention_resolutions": [4, 2],
                "num_head_channels": 64,
                "use_linear_in_transformer": True,
            }
        linear = self.width == 1024  # SD 2
        heads = {"num_head_channels": 64, "use_linear_in_transformer": True} if linear else {"num_heads": 8}
        return common | heads | {"num_res_blocks": 1, "attention_resolutions": [4, 2]}


_XL = {"sgm": True, "width": 2048, "depths": ((4, 2), (5, 2), (7, 10), (8, 10)), "label": 2816}
_REFINER = {"sgm": True, "width": 1280, "least": 384, "channels": (1, 1, 1, 1), "label": 2560}
KINDS = {
    "sd1": ForgeKind(),
    "sd1-v": ForgeKind(prediction="v", seed=2),
    "sd1-other.ckpt": ForgeKind(seed=1),  # not "sd1.ckpt": asked for tiny-sd1, they may take either
    "sd1-wide": ForgeKind(channels=(1, 2, 4)),  # FreeU knows feature maps of 640 and 1280 channels
    "sd1-inpainting": ForgeKind(extra_channels=5),
    "sd1-edit": ForgeKind(extra_channels=4, edit=True),
    "sd2-v": ForgeKind(prediction="v", width=1024),
    "sdxl": ForgeKind(**_XL),
    "sdxl-inpainting": ForgeKind(**_XL, extra_channels=5),
    "sdxl-refiner": ForgeKind(**_REFINER, depths=((4, 4), (5, 4), (7, 4), (8, 4))),
    # A flow in Flux 2's latent space.
    "mugen": ForgeKind(**_XL, latent=32, configuration="CabalResearch/Mugen"),
}
SD2_V = "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias"
"""By how far it is spread reForge and Forge Classic know v-prediction of Stable Diffusion 2.

The tiny ones have no such layer.
"""


CONFIGURATIONS = Path("backend", "huggingface")


def known(webui: Path) -> list[str]:
    """The kinds that the WebUI in this folder knows."""
    if _reforge(webui):
        return [name for name, kind in KINDS.items() if not kind.configuration]
    configurations = webui / CONFIGURATIONS
    return [name for name, kind in KINDS.items() if not kind.edit and (configurations / kind.configuration).is_dir()]


def _reforge(webui: Path) -> bool:
    """Whether the WebUI has its configurations in code."""
    return not (webui / CONFIGURATIONS).is_dir()


def _layers(webui: Path) -> int:
    return REFORGES_LAYERS if _reforge(webui) else TEXT_LAYERS


def make(folder: Path, kind: str, webui: Path) -> Path:
    """Write the checkpoint of a kind (a name in :data:`KINDS`) into ``folder``, for a WebUI, and
    return its path."""
    of = KINDS[kind]
    weights = unet.weights(of, _complete) | _text(of, _layers(webui))
    if of.latent == 32:
        weights |= _statistics(4 * of.latent)
    if of.prediction == "v" and of.width == 1024 and _reforge(webui):
        weights[SD2_V] = torch.tensor([1.0, -1.0])
    path = folder / f"tiny-{kind}"
    if path.suffix == ".ckpt":
        torch.save({"state_dict": weights}, path)
        return path
    path = path.with_suffix(".safetensors")
    save_file({name: value.contiguous() for name, value in weights.items()}, path, {"made_as": kind})
    settings = _settings(of, webui)
    if settings:
        path.with_suffix(".yaml").write_text(settings)
    return path


def _settings(kind: ForgeKind, webui: Path) -> str:
    """The YAML beside a checkpoint. Forge reads only the kind of prediction from it."""
    if not _reforge(webui):
        # JSON is YAML.
        return json.dumps({"model": {"params": {"parameterization": kind.prediction}}})
    if kind.width == 2048:
        # Its own, which numbers the last but one of CLIP's layers from the front.
        own = webui / REFORGES_XL[bool(kind.extra_channels)]
        return own.read_text().replace("layer_idx: 11", f"layer_idx: {REFORGES_LAYERS - 1}")
    if kind.prediction == "eps":
        return ""  # reForge then takes the one that its families have
    name = "clip" if kind.width == 768 else "open_clip"
    return json.dumps(config.write(kind, [text.Encoder(name, {}, "openai/clip-vit-large-patch14")]))


def configurations(webui: Path, folder: Path) -> None:
    """The WebUI's own configurations in ``folder``, but with text encoders and autoencoders of the
    tiny size.

    A WebUI that has them in code gets those sizes.
    """
    autoencoder = {key: AUTOENCODER[key] for key in ("ch", "ch_mult", "num_res_blocks")}
    sizes = {"layers": _layers(webui), "factor": MLP, "autoencoder": autoencoder}
    if _reforge(webui):
        (folder / "sizes.json").write_text(json.dumps(sizes))
        return
    source, target = webui / CONFIGURATIONS, folder / "huggingface"
    shutil.copytree(source, target, dirs_exist_ok=True)
    for path in target.glob("*/*/text_encoder*/config.json"):
        config = json.loads(path.read_text())
        if "num_hidden_layers" in config and "hidden_size" in config:
            config |= {"num_hidden_layers": TEXT_LAYERS, "intermediate_size": MLP * config["hidden_size"]}
            path.write_text(json.dumps(config))
    channels = [AUTOENCODER["ch"] * factor for factor in AUTOENCODER["ch_mult"]]
    for path in target.glob("*/*/vae/config.json"):
        config = json.loads(path.read_text())
        if config.get("latent_channels") in {kind.latent for kind in KINDS.values()}:
            config |= {"block_out_channels": channels, "layers_per_block": AUTOENCODER["num_res_blocks"]}
            path.write_text(json.dumps(config))


def _complete(made: nn.Module, kind: Kind) -> None:
    """Add what ldm's UNet lacks of SDXL's: its label, and transformers of several depths."""
    if not kind.sgm:
        return
    from ldm.modules.attention import BasicTransformerBlock

    width = 4 * made.model_channels
    label = nn.Sequential(nn.Linear(kind.label, width), nn.SiLU(), nn.Linear(width, width))
    made.label_emb = nn.Sequential(label)
    for number, depth in kind.depths:
        transformer = made.input_blocks[number][1]
        channels = transformer.in_channels
        for _ in range(depth - 1):
            block = BasicTransformerBlock(channels, channels // 64, 64, context_dim=kind.width, checkpoint=False)
            transformer.transformer_blocks.append(block)


def _statistics(channels: int) -> dict[str, Tensor]:
    """The statistics by which Flux 2's autoencoder scales its latent, in patches of two by two."""
    of = {"running_mean": torch.zeros(channels), "running_var": torch.ones(channels)}
    of["num_batches_tracked"] = torch.tensor(1)
    return {f"first_stage_model.bn.{name}": value for name, value in of.items()}


def _text(kind: ForgeKind, layers: int) -> dict[str, Tensor]:
    torch.manual_seed(kind.seed)
    clip = {"hidden_size": 768, "num_attention_heads": 12, "projection_dim": 768, "vocab_size": text.CLIP_VOCABULARY}
    clip |= {"num_hidden_layers": layers, "intermediate_size": MLP * 768}
    if kind.sgm:
        first = [text.clip(clip, text.OFFSET)] if kind.width == 2048 else []
        encoders = [*first, text.open_clip(1280, 1280, layers, MLP)]
    elif kind.width == 768:
        encoders = [text.clip(clip, 0)]
    else:
        encoders = [text.open_clip(kind.width, kind.width, layers, MLP)]
    return text.weights([text.Encoder("", weights) for weights in encoders], kind.sgm)
