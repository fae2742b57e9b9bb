"""Stand-ins for those that call the model otherwise, in its wrapper.

``apart``: once for the conditional rows, once for the others. ``relit``: IC-Light, which gives the
model more channels, and a picture in them. ``tiles``: in parts of the picture that overlap.
``strange``: so, after it has changed them.
"""

import gradio as gr
import modules.scripts as scripts
import torch


class Wrapper(scripts.Script):
    def title(self):
        return "Stand-in Wrapper"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def ui(self, is_img2img):
        return [gr.Checkbox(visible=False), gr.Textbox("apart", visible=False)]

    def process_before_every_sampling(self, p, enabled, kind, **kwargs):
        if not enabled:
            return
        unet = p.sd_model.forge_objects.unet.clone()
        previous = unet.model_options.get("model_function_wrapper")
        own = KINDS[kind]
        if own is relit:
            more = torch.randn(320, 8, 3, 3, generator=torch.Generator().manual_seed(1)) * 0.05
            patches = {"diffusion_model.input_blocks.0.0.weight": (more,)}
            unet.add_patches(filename="stand-in", patches=patches)

        def wrapper(apply, call):
            if previous is None:
                return own(apply, call)
            return own(lambda x, t, **c: previous(apply, {**call, "input": x, "timestep": t, "c": c}), call)

        unet.set_model_unet_function_wrapper(wrapper)
        p.sd_model.forge_objects.unet = unet


def _part(values, chosen):
    of_rows = {"c_crossattn", "c_concat", "y"}
    return {name: value[chosen] if name in of_rows else value for name, value in values.items()}


def apart(apply, call):
    x, t, c, kinds = call["input"], call["timestep"], call["c"], call["cond_or_uncond"]
    rows = torch.tensor(kinds, device=x.device).repeat_interleave(len(x) // len(kinds))
    result = torch.empty_like(x)
    for kind in sorted(set(kinds)):
        chosen = rows == kind
        result[chosen] = apply(x[chosen], t[chosen], **_part(c, chosen)) * (1.05 - 0.1 * kind)
    return result


def relit(apply, call):
    x = call["input"]
    picture = torch.linspace(-1, 1, x.shape[-1], device=x.device).expand(len(x), 4, *x.shape[-2:])
    return apply(x, call["timestep"], **{**call["c"], "c_concat": picture.to(x)})


def strange(apply, call):
    return tiles(apply, {**call, "input": call["input"] * 1.01})


def tiles(apply, call):
    x, t = call["input"], call["timestep"]
    half = x.shape[-1] // 2
    result, count = torch.zeros_like(x), torch.zeros_like(x)
    for left in (0, half // 2, half):
        place = (..., slice(left, left + half))
        result[place] += apply(x[place], t, **call["c"])
        count[place] += 1
    return result / count


KINDS = {"apart": apart, "relit": relit, "tiles": tiles, "strange": strange}
