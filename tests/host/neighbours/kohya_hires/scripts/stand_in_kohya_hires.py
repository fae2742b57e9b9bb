"""Stand-in for sd-webui-kohya-hiresfix: in the first steps the UNet's inner blocks work on half the
resolution."""

import gradio as gr
import modules.scripts as scripts
import torch
from modules import script_callbacks, shared

UNTIL = 0.6
"""The part of the steps in which it works."""


class Resized(torch.nn.Module):
    def __init__(self, block, scale):
        super().__init__()
        self.block, self.scale = block, scale

    def forward(self, x, *args):
        return self.block(torch.nn.functional.interpolate(x, scale_factor=self.scale, mode="bicubic"), *args)


def blocks(early):
    """The two places: where the resolution falls, and where it rises again."""
    unet = shared.sd_model.model.diffusion_model
    return ((unet.input_blocks, 3, 0.5), (unet.output_blocks, 3 if early else -4, 2.0))


def restore(unet):
    for of in (unet.input_blocks, unet.output_blocks):
        for at, block in enumerate(of):
            if isinstance(block, Resized):
                of[at] = block.block


class KohyaHires(scripts.Script):
    early = False

    def title(self):
        return "Stand-in Kohya Hires"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def ui(self, is_img2img):
        return [gr.Checkbox(visible=False), gr.Checkbox(visible=False)]

    def process(self, p, enabled, early):
        script_callbacks.remove_callbacks_for_function(resize)
        KohyaHires.early = early
        if enabled:
            script_callbacks.on_cfg_denoiser(resize)

    def postprocess(self, p, processed, *args):
        restore(p.sd_model.model.diffusion_model)


def resize(params):
    if params.sampling_step >= UNTIL * params.total_sampling_steps:
        restore(shared.sd_model.model.diffusion_model)
        return
    for of, at, scale in blocks(KohyaHires.early):
        if not isinstance(of[at], Resized):
            of[at] = Resized(of[at], scale)
