"""Stand-ins for extensions that edit what the host hands to them at every step.

- "conditioning": the prompts' tensors, as CADS does;
- "noise": them too, by PyTorch's own random numbers, as CADS does;
- "regions": what the model gave for the parts of a prompt, as Latent Couple does;
- "latents": the latents and the prediction in the sampler's own callback, as ReSharpen and
  Vectorscope CC do by a function in its place in the class;
- "attention": the outputs of attention layers, by hooks, as SEG and T2I-0 do.
"""

import functools

import gradio as gr
import modules.scripts as scripts
import torch
from modules import script_callbacks, shared
from modules.sd_samplers_kdiffusion import KDiffusionSampler

STRENGTH = 0.2
usual = KDiffusionSampler.callback_state


class Callbacks(scripts.Script):
    edited = "nothing"

    def __init__(self):
        self.handles = []
        script_callbacks.on_cfg_denoiser(self.before)
        script_callbacks.on_cfg_denoised(self.after)

    def title(self):
        return "Stand-in callbacks"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def ui(self, is_img2img):
        return [gr.Textbox("nothing", visible=False)]

    def process_batch(self, p, edited, **kwargs):
        Callbacks.edited = edited
        if edited == "attention":
            layers = [m.attn1 for m in shared.sd_model.model.diffusion_model.modules() if hasattr(m, "attn1")]
            self.handles = [layer.register_forward_hook(_blurred) for layer in layers]

    def postprocess_batch(self, p, edited, **kwargs):
        Callbacks.edited = "nothing"
        while self.handles:
            self.handles.pop().remove()

    def before(self, params):
        if self.edited == "conditioning":
            params.text_cond = params.text_cond + STRENGTH * params.text_cond.roll(1, 1)
            params.text_uncond = params.text_uncond * (1 - STRENGTH)
        if self.edited == "noise":
            params.text_cond = params.text_cond + STRENGTH * torch.randn_like(params.text_cond)

    def after(self, params):
        if self.edited == "regions":
            half = params.x.shape[-1] // 2
            params.x[:-1, ..., half:] += STRENGTH * params.x[-1:, ..., half:]


def _blurred(module, args, output):
    return output + STRENGTH * 5 * (output.mean(1, keepdim=True) - output)


@functools.wraps(usual)
def callback_state(self, d):
    if Callbacks.edited == "latents":
        with torch.inference_mode():
            d["x"][:, 0] += STRENGTH * d["denoised"][:, 1]
            d["denoised"][:, 2] *= 1 - STRENGTH
    return usual(self, d)


KDiffusionSampler.callback_state = callback_state
