"""Stand-in for sd-dynamic-thresholding: a sampler of another name, whose denoiser's class combines
the guidance."""

import gradio as gr
import modules.scripts as scripts
from modules import sd_samplers, sd_samplers_common
from modules.sd_samplers_kdiffusion import CFGDenoiserKDiffusion

MIMIC_SCALE = 2.0


class Thresholding(CFGDenoiserKDiffusion):
    def combine_denoised(self, x_out, conds_list, uncond, cond_scale):
        strong = super().combine_denoised(x_out, conds_list, uncond, cond_scale)
        weak = super().combine_denoised(x_out, conds_list, uncond, MIMIC_SCALE)
        mean = strong.mean(dim=(2, 3), keepdim=True)
        strong = strong - mean
        wanted = (weak - weak.mean(dim=(2, 3), keepdim=True)).std(dim=(2, 3), keepdim=True)
        return strong / strong.std(dim=(2, 3), keepdim=True) * wanted + mean


class DynamicThresholding(scripts.Script):
    def title(self):
        return "Stand-in Dynamic Thresholding"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def ui(self, is_img2img):
        return [gr.Checkbox(visible=False)]

    def process_batch(self, p, enabled, **kwargs):
        if not enabled:
            return
        p.usual_sampler_name = p.sampler_name
        usual = sd_samplers.all_samplers_map[p.sampler_name]

        def constructor(model):
            sampler = usual.constructor(model)
            sampler.model_wrap_cfg = Thresholding(sampler)
            return sampler

        p.extra_generation_params["Sampler"] = p.sampler_name
        p.sampler_name += "_thresholding"
        data = sd_samplers_common.SamplerData(p.sampler_name, constructor, usual.aliases, usual.options)
        sd_samplers.all_samplers_map[p.sampler_name] = data

    def postprocess_batch(self, p, enabled, **kwargs):
        if enabled:
            del sd_samplers.all_samplers_map[p.sampler_name]
            p.sampler_name = p.usual_sampler_name
