"""Stand-in for Characteristic Guidance: a guided denoiser in the place of the host's own.

While a job samples, the class has another forward, which calls the model's eps past the denoiser
around it, with scalings of its own by one noise level for the whole picture.
"""

import functools

import gradio as gr
import modules.scripts as scripts
from modules.sd_samplers_cfg_denoiser import CFGDenoiser
from modules.sd_samplers_timesteps import CompVisTimestepsDenoiser

STRENGTH = 0.3


def forward(self, x, sigma, uncond, cond, cond_scale, s_min_uncond, image_cond):
    at, wrapped = sigma.view(-1, 1, 1, 1), self.inner_model
    text = cond.batch[0][0].schedules[0].cond.expand(len(x), -1, -1)
    inputs = {"c_crossattn": [text], "c_concat": [image_cond]}
    if isinstance(wrapped, CompVisTimestepsDenoiser):
        correction = wrapped(x, sigma, cond=inputs)
    else:
        eps = wrapped.get_eps(x / (at**2 + 1) ** 0.5, wrapped.sigma_to_t(sigma), cond=inputs)
        correction = eps * at
    corrected = x - STRENGTH * (correction - correction.mean((-2, -1), keepdim=True))
    return usual(self, corrected, sigma, uncond, cond, cond_scale, s_min_uncond, image_cond)


usual = CFGDenoiser.forward


class OwnDenoiser(scripts.Script):
    def title(self):
        return "Stand-in own denoiser"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def ui(self, is_img2img):
        return [gr.Checkbox(visible=False)]

    def process_batch(self, p, enabled, **kwargs):
        if not enabled:
            return
        sample = p.sample

        @functools.wraps(sample)
        def with_own(*args, **kwargs):
            CFGDenoiser.forward = forward
            try:
                return sample(*args, **kwargs)
            finally:
                CFGDenoiser.forward = usual

        p.sample = with_own
