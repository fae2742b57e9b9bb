"""Stand-in for sd-webui-regional-prompter's latent mode: the batch goes through the model part by
part of the prompts and not picture by picture, and each part's prediction counts in its own half.
"""

import gradio as gr
import modules.scripts as scripts
from modules import script_callbacks, shared


class PartsFirst(scripts.Script):
    enabled = False

    def __init__(self):
        script_callbacks.on_cfg_denoiser(self.before)
        script_callbacks.on_cfg_denoised(self.after)

    def title(self):
        return "Stand-in Parts First"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def ui(self, is_img2img):
        return [gr.Checkbox(visible=False)]

    def process_batch(self, p, enabled, **kwargs):
        self.enabled, self.batch = enabled, p.batch_size
        if enabled:
            self.usual, shared.opts.batch_cond_uncond = shared.opts.batch_cond_uncond, False

    def postprocess_batch(self, p, enabled, **kwargs):
        if self.enabled:
            shared.opts.batch_cond_uncond = self.usual
        self.enabled = False

    def before(self, params):
        if not self.enabled:
            return
        self.parts = len(params.x) // self.batch - 1
        for held in (params.x, params.sigma, params.image_cond, *tensors_of(params.text_cond)):
            held[: self.parts * self.batch] = held[self.order()].clone()

    def after(self, params):
        if not self.enabled:
            return
        x = params.x
        x[self.order()] = x[: self.parts * self.batch].clone()
        width = x.shape[-1] // self.parts
        for row in range(self.parts * self.batch):
            image, part = divmod(row, self.parts)
            uncond = x[self.parts * self.batch + image]
            own = slice(part * width, x.shape[-1] if part == self.parts - 1 else (part + 1) * width)
            kept = x[row, ..., own].clone()
            x[row] = uncond
            x[row, ..., own] = kept

    def order(self):
        """The rows of the host's batch in the order in which they are sent."""
        return [image * self.parts + part for part in range(self.parts) for image in range(self.batch)]


def tensors_of(text):
    return text.values() if isinstance(text, dict) else (text,)
