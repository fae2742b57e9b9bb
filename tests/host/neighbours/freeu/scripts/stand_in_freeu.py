"""Stand-in for sd-webui-freeu: the UNet's ``th.cat`` scales backbone and skip connection where they
meet."""

import functools

import gradio as gr
import modules.scripts as scripts
import torch
from modules.sd_hijack_unet import th

BACKBONE, SKIP = 1.6, 0.4


class FreeU(scripts.Script):
    enabled = False

    def title(self):
        return "Stand-in FreeU"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def ui(self, is_img2img):
        return [gr.Checkbox(visible=False)]

    def process(self, p, enabled):
        FreeU.enabled = enabled


def cat(tensors, *args, original, **kwargs):
    if FreeU.enabled and len(tensors) == 2 and kwargs == {"dim": 1}:
        h, skip = tensors
        half = h.shape[1] // 2
        mean = h.mean(dim=1, keepdim=True)
        low, high = mean.amin(dim=(2, 3), keepdim=True), mean.amax(dim=(2, 3), keepdim=True)
        scale = 1 + (BACKBONE - 1) * (mean - low) / (high - low).clamp(min=1e-6)
        h = torch.cat([h[:, :half] * scale, h[:, half:]], dim=1)
        frequencies = torch.fft.fftn(skip.float(), dim=(-2, -1))
        frequencies[..., 0, 0] *= SKIP
        tensors = h, torch.fft.ifftn(frequencies, dim=(-2, -1)).real.to(skip)
    return original(tensors, *args, **kwargs)


th.cat = functools.partial(cat, original=th.cat)
