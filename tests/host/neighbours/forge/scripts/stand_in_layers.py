"""Stand-in for sd-forge-layerdiffuse on Stable Diffusion 1: other modules in the attentions' place.

They have no projections of their own by the attentions' names. In the last steps, by a modifier of
the conditioning, another prompt is in the negative one's place.
"""

import gradio as gr
import modules.scripts as scripts
import torch
from modules.prompt_parser import SdConditioning
from stand_in_engine import compile_conditions, percent_to_sigma, unload_model_clones


class Shared(torch.nn.Module):
    def __init__(self, attention):
        super().__init__()
        self.attention = [attention]

    def forward(self, h, context=None, value=None, transformer_options={}):  # noqa: B006 - as the host calls it
        return self.attention[0](h, context=context, value=value) * 0.8


class Layers(scripts.Script):
    def title(self):
        return "Stand-in Layers"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def ui(self, is_img2img):
        return [gr.Checkbox(visible=False), gr.Checkbox(True, visible=False)]

    def process_before_every_sampling(self, p, enabled, modules, **kwargs):
        if not enabled:
            return
        unet = p.sd_model.forge_objects.unet.clone()
        model = unet.model.diffusion_model
        if modules:
            unload_model_clones(unet)  # else the host would not exchange them
        named = [(name, module) for name, module in model.named_modules() if name.endswith((".attn1", ".attn2"))]
        for name, module in named if modules else ():
            unet.add_object_patch(f"diffusion_model.{name}", Shared(module))
        texts = SdConditioning(["a red heart"] * p.batch_size, width=p.width, height=p.height)
        other = compile_conditions(p.sd_model.get_learned_conditioning(texts))
        end = percent_to_sigma(unet, 0.5)

        def modified(model, x, timestep, uncond, cond, cond_scale, model_options, seed):
            uncond = other if timestep[0].item() < end else uncond
            return model, x, timestep, uncond, cond, cond_scale, model_options, seed

        unet.add_conditioning_modifier(modified)
        p.sd_model.forge_objects.unet = unet
