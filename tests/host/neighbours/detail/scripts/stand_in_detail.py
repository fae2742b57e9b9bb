"""Stand-in for sd-webui-detail-daemon: the model is told less noise than there is."""

import gradio as gr
import modules.scripts as scripts
from modules import script_callbacks

AMOUNT = 0.08


class Detail(scripts.Script):
    enabled = False

    def __init__(self):
        script_callbacks.on_cfg_denoiser(self.before)

    def title(self):
        return "Stand-in Detail"

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
            params.sigma[: len(params.sigma) // 2] *= 1 - AMOUNT
