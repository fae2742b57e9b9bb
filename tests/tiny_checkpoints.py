"""Tiny Stable Diffusion 1 and 2 checkpoints with random weights, in ldm format with their YAML beside them.

    python tests/tiny_checkpoints.py FOLDER

They have the layers and weights' names of Stable Diffusion 1.5, so that a WebUI loads them too. The text
encoder of kind 1 has the embedded model's tokenizer; that of kind 2 is OpenCLIP's smallest, which a WebUI
brings with its tokenizer. Random weights would leave every sampler in the noise
that it began with; see :func:`pass_input_through`.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

TOKENIZER = Path(__file__).parent.parent / "asyndm_lib" / "demo" / "model" / "tokenizer"
TEXT_WIDTH = 64
# 32 channels: GroupNorm(32) then has one channel a group, on which pass_input_through() relies.
UNET = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 32,
    "attention_resolutions": [4, 2, 1],
    "num_res_blocks": 2,
    "channel_mult": [1, 2, 4, 4],
    "num_heads": 2,
    "use_spatial_transformer": True,
    "transformer_depth": 1,
    "context_dim": TEXT_WIDTH,
    "use_checkpoint": False,
    "legacy": False,
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
PARAMETERIZATIONS = {"sd1": "eps", "sd1-v": "v", "sd2-v": "v"}
"""The kinds of checkpoint; the first two have the same weights."""
OPEN_CLIP = {"arch": "RN50", "width": 512, "layers": 12, "projection": 1024, "vocabulary": 49408}


def make(folder: Path, kind: str) -> Path:
    """Write the checkpoint of a kind into ``folder``; returns its path."""
    folder = folder.resolve()  # a WebUI wants the absolute path of the text folder
    text_folder = folder / "tiny-text"
    shutil.copytree(TOKENIZER, text_folder, dirs_exist_ok=True)
    text_config = json.loads((text_folder / "config.json").read_text()) | {
        "hidden_size": TEXT_WIDTH,
        "intermediate_size": 4 * TEXT_WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "projection_dim": TEXT_WIDTH,
    }
    (text_folder / "config.json").write_text(json.dumps(text_config))
    path = folder / f"tiny-{kind}.safetensors"
    # A WebUI knows a checkpoint by its hash: the kinds must differ in it.
    open_clip = kind.startswith("sd2")
    unet = UNET | ({"context_dim": OPEN_CLIP["width"]} if open_clip else {})
    text = _open_clip_text() if open_clip else _clip_text(text_config)
    save_file(_weights(unet, text), path, {"made_as": kind})
    config = _config(unet, str(text_folder), kind)
    path.with_suffix(".yaml").write_text(json.dumps(config, indent=2))  # JSON is YAML
    return path


def _config(unet: dict, text_folder: str, kind: str) -> dict:
    def part(target: str, **params: object) -> dict:
        return {"target": target, "params": params}

    encoders = "ldm.modules.encoders.modules."
    if kind.startswith("sd2"):
        text = part(encoders + "FrozenOpenCLIPEmbedder", arch=OPEN_CLIP["arch"], version=None, layer="penultimate")
    else:
        text = part(encoders + "FrozenCLIPEmbedder", version=text_folder)
    return {
        "model": part(
            "ldm.models.diffusion.ddpm.LatentDiffusion",
            parameterization=PARAMETERIZATIONS[kind],
            linear_start=0.00085,
            linear_end=0.0120,
            num_timesteps_cond=1,
            log_every_t=200,
            timesteps=1000,
            first_stage_key="jpg",
            cond_stage_key="txt",
            image_size=64,
            channels=4,
            cond_stage_trainable=False,
            conditioning_key="crossattn",
            monitor="val/loss_simple_ema",
            scale_factor=0.18215,
            use_ema=False,
            unet_config=part("ldm.modules.diffusionmodules.openaimodel.UNetModel", **unet),
            first_stage_config=part(
                "ldm.models.autoencoder.AutoencoderKL",
                embed_dim=4,
                monitor="val/rec_loss",
                ddconfig=AUTOENCODER,
                lossconfig={"target": "torch.nn.Identity"},
            ),
            cond_stage_config=text,
        )
    }


def _clip_text(config: dict) -> dict[str, Tensor]:
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    text = CLIPTextModel(CLIPTextConfig(**config))
    with torch.no_grad():
        for name, parameter in text.named_parameters():
            # Weight 1 and bias 0 would make the mean of every text vector 0, and a WebUI's weighted prompt 0/0.
            if "final_layer_norm" in name:
                torch.nn.init.uniform_(parameter, 0.5, 1.5) if name.endswith("weight") else parameter.normal_(std=0.3)
    prefix = "transformer.text_model."
    return {
        prefix + name.removeprefix("text_model."): value
        for name, value in text.state_dict().items()
        if not name.endswith("position_ids")
    }


def _open_clip_text() -> dict[str, Tensor]:
    """The text half of an OpenCLIP model, under its own names."""
    torch.manual_seed(0)
    width, layers = OPEN_CLIP["width"], OPEN_CLIP["layers"]

    def linear(name: str, rows: int, columns: int) -> dict[str, Tensor]:
        separator = "_" if name.endswith("in_proj") else "."
        return {
            f"{name}{separator}weight": torch.randn(rows, columns) * columns**-0.5,
            f"{name}{separator}bias": torch.zeros(rows),
        }

    def norm(name: str) -> dict[str, Tensor]:
        return {f"{name}.weight": torch.rand(width) + 0.5, f"{name}.bias": torch.randn(width) * 0.3}

    text = {
        "token_embedding.weight": torch.randn(OPEN_CLIP["vocabulary"], width) * 0.02,
        "positional_embedding": torch.randn(77, width) * 0.01,
        "text_projection": torch.randn(width, OPEN_CLIP["projection"]) * width**-0.5,
        "logit_scale": torch.tensor(2.66),
        **norm("ln_final"),
    }
    for layer in range(layers):
        block = f"transformer.resblocks.{layer}"
        text |= norm(f"{block}.ln_1") | norm(f"{block}.ln_2")
        text |= linear(f"{block}.attn.in_proj", 3 * width, width) | linear(f"{block}.attn.out_proj", width, width)
        text |= linear(f"{block}.mlp.c_fc", 4 * width, width) | linear(f"{block}.mlp.c_proj", width, 4 * width)
    return {"model." + name: value for name, value in text.items()}


def _weights(unet_params: dict, text: dict[str, Tensor]) -> dict[str, Tensor]:
    """Everything in the checkpoint. ``text``: the text encoder's weights by their names in it."""
    from ldm.modules.diffusionmodules.model import Decoder, Encoder
    from ldm.modules.diffusionmodules.openaimodel import UNetModel

    torch.manual_seed(0)
    unet = UNetModel(**unet_params)
    autoencoder = nn.ModuleDict(
        {
            "encoder": Encoder(**AUTOENCODER),
            "decoder": Decoder(**AUTOENCODER),
            "quant_conv": nn.Conv2d(8, 8, 1),
            "post_quant_conv": nn.Conv2d(4, 4, 1),
        }
    )
    with torch.no_grad():
        for parameter in unet.parameters():
            if parameter.dim() > 1 and not parameter.any():  # the outputs of blocks start at zero
                parameter.normal_(std=0.5 / parameter[0].numel() ** 0.5)
        for name, module in unet.named_modules():
            if name.endswith(("attn2.to_q", "attn2.to_k")):  # so that tokens differ in where they look
                module.weight.mul_(3)
        unet.out[2].weight.mul_(0.2)  # an error of eps counts about sigma_max times in the picture
        pass_input_through(unet)
        autoencoder["decoder"].conv_out.weight.mul_(1.5)  # more contrast

    betas = torch.linspace(0.00085**0.5, 0.0120**0.5, 1000, dtype=torch.float64) ** 2
    alphas_cumprod = torch.cumprod(1 - betas, dim=0)
    parts = {
        "model.diffusion_model.": unet.state_dict(),
        "first_stage_model.": autoencoder.state_dict(),
        "cond_stage_model.": text,
    }
    weights = {prefix + name: value for prefix, part in parts.items() for name, value in part.items()}
    half = {name: value.half().contiguous() for name, value in weights.items()}
    return {"betas": betas.float(), "alphas_cumprod": alphas_cumprod.float(), **half}


def pass_input_through(unet: nn.Module) -> None:
    """Make the UNet's output ``x / std(x)`` and a small random part.

    The first convolution writes ``x`` and ``-x`` into eight channels; the last ResBlock gets them through
    the outermost skip connection; the last GroupNorm, of one channel a group, divides each by its standard
    deviation; and ``silu(a) - silu(-a) = a`` undoes the activation.
    """
    first = unet.input_blocks[0][0]
    last_block, last_attention = unet.output_blocks[-1]
    norm, _, out = unet.out
    for channel in range(4):
        for sign, row in ((1, 2 * channel), (-1, 2 * channel + 1)):
            first.weight[row] = 0
            first.bias[row] = 0
            first.weight[row, channel, 1, 1] = sign
            # What else is added to these channels.
            for layer in (last_block.out_layers[3], last_attention.proj_out, last_block.skip_connection):
                layer.weight[row] = 0
                layer.bias[row] = 0
            last_block.skip_connection.weight[row, UNET["model_channels"] + row] = 1
            norm.weight[row] = 1
            norm.bias[row] = 0
            out.weight[:, row] = 0
            out.weight[channel, row, 1, 1] = sign


if __name__ == "__main__":
    for kind in PARAMETERIZATIONS:
        print(make(Path(sys.argv[1]), kind))
