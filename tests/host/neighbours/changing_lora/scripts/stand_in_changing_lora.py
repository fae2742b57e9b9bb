"""Stand-in for loractl and sd-webui-lora-block-weight: the weight of every LoRA falls from step to
step."""

import gradio as gr
import modules.scripts as scripts
from modules import script_callbacks

FALL = 0.15


class ChangingLora(scripts.Script):
    enabled = False

    def __init__(self):
        script_callbacks.on_cfg_denoiser(self.before)

    def title(self):
        return "Stand-in changing LoRA"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def ui(self, is_img2img):
        return [gr.Checkbox(visible=False)]

    def process_batch(self, p, enabled, **kwargs):
        self.enabled = enabled

    def postprocess_batch(self, p, enabled, **kwargs):
        self.enabled = False

    def before(self, params):
        if self.enabled:
            import networks  # of the WebUI's LoRA extension, which is loaded by now

            for network in networks.loaded_networks:
                network.unet_multiplier = 1 - FALL * params.denoiser.step
