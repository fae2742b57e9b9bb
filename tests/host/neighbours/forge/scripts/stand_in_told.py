"""Stand-ins for those that tell the model less noise than there is.

``in place`` and ``anew`` are Detail Daemon's callback, which writes into the host's noise levels or
exchanges them. The others do it where Forge has a place for it: ``modifier`` of the conditioning,
``before`` CFG, ``wrapper`` around the model.
"""

import gradio as gr
import modules.scripts as scripts
from modules import script_callbacks

FACTOR = 0.92


class Told(scripts.Script):
    kind = None

    def __init__(self):
        script_callbacks.on_cfg_denoiser(self.before)

    def title(self):
        return "Stand-in Told"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def ui(self, is_img2img):
        return [gr.Checkbox(visible=False), gr.Textbox("in place", visible=False)]

    def process_batch(self, p, enabled, kind, **kwargs):
        self.kind = kind if enabled else None

    def postprocess_batch(self, p, enabled, kind, **kwargs):
        self.kind = None

    def before(self, params):
        if self.kind == "in place":
            params.sigma *= FACTOR
        elif self.kind == "anew":
            params.sigma = params.sigma * FACTOR

    def process_before_every_sampling(self, p, enabled, kind, **kwargs):
        if not enabled or kind not in KINDS:
            return
        unet = p.sd_model.forge_objects.unet.clone()
        KINDS[kind](unet)
        p.sd_model.forge_objects.unet = unet


def modifier(unet):
    def modified(model, x, timestep, uncond, cond, cond_scale, model_options, seed):
        return model, x, timestep * FACTOR, uncond, cond, cond_scale, model_options, seed

    unet.add_conditioning_modifier(modified)


def before(unet):
    def changed(model, cond, uncond, x, timestep, options):
        return model, cond, uncond, x, timestep * FACTOR, options

    unet.add_sampler_pre_cfg_function(changed)


def wrapper(unet):
    unet.set_model_unet_function_wrapper(
        lambda apply, call: apply(call["input"], call["timestep"] * FACTOR, **call["c"])
    )


KINDS = {"modifier": modifier, "before": before, "wrapper": wrapper}
