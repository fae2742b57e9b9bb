"""The random UNet and autoencoder of a checkpoint."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .kinds import AUTOENCODER, Kind


def weights(kind: Kind, complete: Callable[[nn.Module, Kind], None] | None = None) -> dict[str, Tensor]:
    """All weights but those of the text encoders, by their names in a checkpoint.

    ``complete`` adds to ldm's UNet what it has no parameter for.
    """
    from ldm.modules.diffusionmodules.model import Decoder, Encoder
    from ldm.modules.diffusionmodules.openaimodel import UNetModel

    torch.manual_seed(0)  # one autoencoder for all kinds of a latent
    sizes = AUTOENCODER | {"z_channels": kind.latent}
    autoencoder = nn.ModuleDict(
        {
            "encoder": Encoder(**sizes),
            "decoder": Decoder(**sizes),
            "quant_conv": nn.Conv2d(2 * kind.latent, 2 * kind.latent, 1),
            "post_quant_conv": nn.Conv2d(kind.latent, kind.latent, 1),
        }
    )
    torch.manual_seed(kind.seed)
    unet = UNetModel(**{"image_size": 32} | kind.unet)
    if complete is not None:
        complete(unet, kind)
    with torch.no_grad():
        for parameter in unet.parameters():
            if parameter.dim() > 1 and not parameter.any():  # the outputs of blocks start at zero
                parameter.normal_(std=0.5 / parameter[0].numel() ** 0.5)
        for name, module in unet.named_modules():
            # So that tokens differ in where they look.
            if name.endswith(("attn2.to_q", "attn2.to_k")):
                module.weight.mul_(3)
        unet.out[2].weight.mul_(0.2)  # an error of eps counts about sigma_max times in the picture
        pass_input_through(unet)
        autoencoder["decoder"].conv_out.weight.mul_(1.5)  # more contrast

    betas = torch.linspace(0.00085**0.5, 0.0120**0.5, 1000, dtype=torch.float64) ** 2
    alphas_cumprod = torch.cumprod(1 - betas, dim=0)
    parts = {"model.diffusion_model.": unet.state_dict(), "first_stage_model.": autoencoder.state_dict()}
    half = {prefix + name: value.half() for prefix, part in parts.items() for name, value in part.items()}
    return {"betas": betas.float(), "alphas_cumprod": alphas_cumprod.float(), **half}


def pass_input_through(unet: nn.Module) -> None:
    """Make the UNet's output ``x / std(x)`` and a small random part.

    The first convolution writes ``x`` and ``-x`` into the first channels of some of GroupNorm's 32
    groups, whose others are nothing. The last ResBlock gets them through the outermost skip
    connection, and the last GroupNorm divides each by its standard deviation. Then ``silu(a) -
    silu(-a) = a`` undoes the activation. At most half of the groups are taken: a latent of many
    channels shares them.
    """
    first = unet.input_blocks[0][0]
    last_block, *last_attention = unet.output_blocks[-1]  # SDXL has no attention there
    norm, _, out = unet.out
    group = unet.model_channels // 32
    channels = len(out.weight)
    together = max(2 * channels // 16, 1)
    adding = [last_block.out_layers[3], last_block.skip_connection, *(layer.proj_out for layer in last_attention)]
    taken = slice(0, 2 * channels // together * group)
    for layer in (first, *adding):  # what else comes to these groups
        layer.weight[taken] = 0
        layer.bias[taken] = 0
    norm.bias[taken] = 0
    out.weight[:, taken] = 0
    for channel in range(channels):
        for sign, number in ((1, 2 * channel), (-1, 2 * channel + 1)):
            row = number // together * group + number % together
            first.weight[row, channel, 1, 1] = sign
            last_block.skip_connection.weight[row, -unet.model_channels + row] = 1
            norm.weight[row] = (group / together) ** -0.5
            out.weight[channel, row, 1, 1] = sign
