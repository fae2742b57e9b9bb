"""Stand-in for sd-webui-neutral-prompt: ``AND_PERP`` is ``AND`` whose part of the guidance is made
perpendicular.

Which parts are is remembered by the parser of prompts that it puts in the host's place: those of
the prompts that it was asked last.
"""

import functools
import re

import gradio as gr
import modules.scripts as scripts
from modules import prompt_parser, sd_samplers

PART = re.compile(r"\s*\b(AND_PERP|AND)\b\s*")


class NeutralPrompt(scripts.Script):
    enabled = False
    perpendicular = ()

    def title(self):
        return "Stand-in Neutral Prompt"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def ui(self, is_img2img):
        return [gr.Checkbox(visible=False)]

    def process(self, p, enabled):
        NeutralPrompt.enabled = enabled


def get_multicond_prompt_list(prompts, original):
    if NeutralPrompt.enabled:
        words = map(PART.findall, prompts)
        NeutralPrompt.perpendicular = [[False, *(word == "AND_PERP" for word in own)] for own in words]
        translated = [PART.sub(" AND ", prompt) for prompt in prompts]
        prompts = prompt_parser.SdConditioning(translated, copy_from=prompts)
    return original(prompts)


def create_sampler(name, model, original):
    sampler = original(name, model)
    denoiser = sampler.model_wrap_cfg
    denoiser.combine_denoised = functools.partial(combine_denoised, original=denoiser.combine_denoised)
    return sampler


def combine_denoised(x_out, conds_list, uncond, cond_scale, original):
    if not NeutralPrompt.enabled:
        return original(x_out, conds_list, uncond, cond_scale)
    parts = list(zip(conds_list, NeutralPrompt.perpendicular, strict=True))
    usual = [[cond for cond, perp in zip(conds, perps, strict=True) if not perp] for conds, perps in parts]
    denoised = original(x_out, usual, uncond, cond_scale)
    for image, (conds, perps) in enumerate(parts):
        base = x_out[len(x_out) - len(parts) + image]
        normal = sum(weight * (x_out[at] - base) for at, weight in usual[image])
        for (at, weight), perp in zip(conds, perps, strict=True):
            if perp:
                vector = x_out[at] - base
                vector = vector - normal * (normal * vector).sum() / (normal * normal).sum()
                denoised[image] += weight * cond_scale * vector
    return denoised


prompt_parser.get_multicond_prompt_list = functools.partial(
    get_multicond_prompt_list, original=prompt_parser.get_multicond_prompt_list
)
sd_samplers.create_sampler = functools.partial(create_sampler, original=sd_samplers.create_sampler)
