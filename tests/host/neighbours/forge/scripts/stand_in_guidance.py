"""Stand-ins for guidance, most of which evaluates the model once more within a step.

``perturbed``: PAG and SEG, of the conditional rows, in a function after CFG. ``degraded``: SAG, of
the unconditional rows with a changed picture. ``windows``: SWG of sd-perturbed-attention, of parts
of the picture. ``another prompt``: Perp-Neg, of a prompt of its own, in the function in CFG's
place. ``before``: in a function before CFG. ``strange``: of a mirrored half of the picture.
``attention``: NAG, in the place of the cross-attentions' own computation.
"""

import gradio as gr
import modules.scripts as scripts
import torch
from modules.prompt_parser import SdConditioning
from stand_in_engine import (
    attention_function,
    calc_cond_uncond_batch,
    compile_conditions,
    set_model_options_patch_replace,
)

SCALE = 3.0
LONG = ", ".join(["a very long description of something else"] * 12)


class Guidance(scripts.Script):
    def title(self):
        return "Stand-in Guidance"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def ui(self, is_img2img):
        return [gr.Checkbox(visible=False), gr.Textbox("perturbed", visible=False)]

    def process_before_every_sampling(self, p, enabled, kind, **kwargs):
        if not enabled:
            return
        unet = p.sd_model.forge_objects.unet.clone()
        KINDS[kind](unet, p)
        p.sd_model.forge_objects.unet = unet


def _perturbed(options):
    return set_model_options_patch_replace(options.copy(), lambda q, k, v, to: v, "attn1", "middle", 0)


def perturbed(unet, p):
    def after(args):
        options = _perturbed(args["model_options"])
        weak, _ = calc_cond_uncond_batch(args["model"], args["cond"], None, args["input"], args["sigma"], options)
        return args["denoised"] + (args["cond_denoised"] - weak) * SCALE

    unet.set_model_sampler_post_cfg_function(after)


def degraded(unet, p):
    def after(args):
        x, uncond = args["input"], args["uncond_denoised"]
        blurred = torch.nn.functional.avg_pool2d(uncond, 3, 1, 1)
        weak, _ = calc_cond_uncond_batch(
            args["model"], args["uncond"], None, x + blurred - uncond, args["sigma"], args["model_options"]
        )
        return args["denoised"] + (blurred - weak) * 0.75

    unet.set_model_sampler_post_cfg_function(after, disable_cfg1_optimization=True)


def windows(unet, p):
    def after(args):
        x = args["input"]
        sides = [slice(0, x.shape[-1] // 2), slice(x.shape[-1] // 2, None)]
        parts = [
            calc_cond_uncond_batch(
                args["model"], args["cond"], None, x[..., side], args["sigma"], args["model_options"]
            )[0]
            for side in sides
        ]
        return args["denoised"] + (args["cond_denoised"] - torch.cat(parts, dim=-1)) * SCALE

    unet.set_model_sampler_post_cfg_function(after)


def strange(unet, p):
    def after(args):
        x = args["input"][..., : args["input"].shape[-1] // 2].flip(-1)
        calc_cond_uncond_batch(args["model"], args["cond"], None, x, args["sigma"], args["model_options"])
        return args["denoised"]

    unet.set_model_sampler_post_cfg_function(after)


def another_prompt(unet, p):
    texts = SdConditioning([LONG] * p.batch_size, width=p.width, height=p.height)
    other = compile_conditions(p.sd_model.get_learned_conditioning(texts))

    def guided(args):
        x, cond, uncond = args["input"], args["cond_denoised"], args["uncond_denoised"]
        avoided, _ = calc_cond_uncond_batch(args["model"], other, None, x, args["sigma"], args["model_options"])
        return x - (uncond + args["cond_scale"] * (cond - uncond) - (avoided - uncond))

    unet.set_model_sampler_cfg_function(guided)


def before(unet, p):
    def changed(model, cond, uncond, x, timestep, options):
        weak, _ = calc_cond_uncond_batch(model, cond, None, x, timestep, _perturbed(options))
        return model, cond, uncond, x + 0.05 * (x - weak), timestep, options

    unet.add_sampler_pre_cfg_function(changed)


def attention(unet, p):
    def replaced(q, k, v, options):
        kinds = options["cond_or_uncond"]
        parts = attention_function(q, k, v, heads=options["n_heads"]).chunk(len(kinds))
        if 1 not in kinds:
            return torch.cat(parts)
        negative = parts[kinds.index(1)]
        return torch.cat([p if kind else p + 1.5 * (p - negative) for p, kind in zip(parts, kinds, strict=True)])

    for block in ("input", "middle", "output"):
        for number in range(16):
            unet.set_model_attn2_replace(replaced, block, number)


KINDS = {
    "perturbed": perturbed,
    "degraded": degraded,
    "windows": windows,
    "another prompt": another_prompt,
    "before": before,
    "strange": strange,
    "attention": attention,
}
