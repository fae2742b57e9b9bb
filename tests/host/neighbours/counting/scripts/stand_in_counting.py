"""Stand-in for sd-webui-llul: it counts the UNet's calls by a hook, and acts in as many as the
picture has steps."""

import gradio as gr
import modules.scripts as scripts
from modules import shared

STRENGTH = 0.3


class Counting(scripts.Script):
    def __init__(self):
        self.handles = []

    def title(self):
        return "Stand-in counting"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def ui(self, is_img2img):
        return [gr.Checkbox(visible=False)]

    def process_batch(self, p, enabled, **kwargs):
        if not enabled:
            return
        unet, calls = shared.sd_model.model.diffusion_model, 0

        def count(module, args):
            nonlocal calls
            calls += 1

        def act(module, args, output):
            return output * (1 - STRENGTH) if 1 <= calls <= p.steps else output

        self.handles = [unet.register_forward_pre_hook(count), unet.middle_block.register_forward_hook(act)]

    def postprocess_batch(self, p, enabled, **kwargs):
        while self.handles:
            self.handles.pop().remove()
