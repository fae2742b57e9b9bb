"""Stand-in for sd-webui-incantations' PAG: a model call of its own in the host's callback.

It evaluates the model on the host's whole batch once more, with its self-attentions perturbed, and
guides away from the result.
"""

import gradio as gr
import modules.scripts as scripts
import torch
from modules import script_callbacks, shared
from modules.sd_samplers_cfg_denoiser import catenate_conds

SCALE = 2.0


class PerturbedAttention(scripts.Script):
    def __init__(self):
        self.seen = None
        script_callbacks.on_cfg_denoiser(self.before)
        script_callbacks.on_cfg_denoised(self.after)

    def title(self):
        return "Stand-in Perturbed Attention"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def ui(self, is_img2img):
        return [gr.Checkbox(visible=False)]

    def process_batch(self, p, enabled, **kwargs):
        self.enabled = enabled

    def postprocess_batch(self, p, enabled, **kwargs):
        self.enabled, self.seen = False, None

    enabled = False

    def before(self, params):
        if self.enabled:
            self.seen = params.x, params.sigma, params.text_cond, params.text_uncond, params.image_cond

    def after(self, params):
        if not self.enabled or self.seen is None:
            return
        x, sigma, cond, uncond, image_cond = self.seen
        if cond.shape[1:] != uncond.shape[1:]:
            return
        values = {"c_crossattn": [catenate_conds([cond, uncond])], "c_concat": [image_cond]}
        modules = [m.attn1 for m in shared.sd_model.model.diffusion_model.modules() if hasattr(m, "attn1")]
        handles = [m.register_forward_hook(lambda module, args, output: torch.zeros_like(output)) for m in modules]
        try:
            perturbed = params.inner_model(x, sigma, cond=values)
        finally:
            for handle in handles:
                handle.remove()
        params.x += SCALE * (params.x - perturbed)
