"""Stand-in for Tiled Diffusion (multidiffusion-upscaler): the model is given the picture in tiles.

The ways are those of MultiDiffusion and of Mixture of Diffusers, with regions that have prompts of
their own, and some that other extensions might take.
"""

import functools
import json
from types import MethodType, SimpleNamespace

import gradio as gr
import modules.scripts as scripts
import torch
from modules import extra_networks, prompt_parser, sd_samplers, shared

TILE, STRIDE, TOGETHER = 16, 12, 2


def places(size):
    """Where tiles begin on a side of ``size`` latent pixels, at uneven steps as the extension's."""
    count = max(-(-(size - TILE) // STRIDE), 0) + 1
    return [int(n * (size - TILE) / max(count - 1, 1)) for n in range(count)]


def text_of(cond):
    key = "crossattn" if "crossattn" in cond else "c_crossattn"
    return key, cond[key][0] if isinstance(cond[key], list) else cond[key]


class Tiles:
    """What stands in the place of the original method, and keeps it."""

    def __init__(self, p, sampler, way, regions):
        self.p, self.sampler, self.way = p, sampler, way
        self.w, self.h = p.width // 8, p.height // 8
        self.custom_bboxes = [self.region(*region) for region in regions]
        self.sizes = []

    def region(self, x, y, w, h, prompt):
        prompts = self.p.all_prompts[: self.p.batch_size]
        texts, _ = extra_networks.parse_prompts([f"{text}, {prompt}" if prompt else text for text in prompts])
        negative = self.p.all_negative_prompts[: self.p.batch_size]
        return SimpleNamespace(
            x=x,
            y=y,
            w=w,
            h=h,
            prompt=prompt,
            cond=prompt_parser.get_multicond_learned_conditioning(shared.sd_model, texts, self.p.steps),
            uncond=prompt_parser.get_learned_conditioning(shared.sd_model, negative, self.p.steps),
        )

    def hook(self):
        denoiser, sd_model = self.sampler.model_wrap_cfg.inner_model, shared.sd_model
        unet = sd_model.model.diffusion_model
        if self.way in ("MultiDiffusion", "strided", "padded"):
            self.original = denoiser.forward
            denoiser.forward = self.denoise
        elif self.way == "closure":
            original = denoiser.forward

            def forward(x, sigma, cond):
                return self.tiled(lambda *call: original(*call[:2], cond=call[2]), x, sigma, cond)

            denoiser.forward = forward
        elif self.way == "unseen":
            kept = [denoiser.forward]

            def forward(x, sigma, cond):
                return self.tiled(lambda *call: kept[0](*call[:2], cond=call[2]), x, sigma, cond)

            denoiser.forward = forward
        elif self.way == "Mixture of Diffusers":
            sd_model.apply_model_original = sd_model.apply_model
            sd_model.apply_model = self.apply_model
        elif self.way == "UNet":
            unet.forward = functools.partial(self.unet, unet.forward)

    @staticmethod
    def unhook():
        sd_model = shared.sd_model
        if hasattr(sd_model, "apply_model_original"):
            sd_model.apply_model = sd_model.apply_model_original
            del sd_model.apply_model_original
        unet = vars(sd_model.model.diffusion_model)
        if isinstance(getattr(unet.get("forward"), "func", None), MethodType):  # nobody else's
            del unet["forward"]

    def denoise(self, x, sigma, cond):
        return self.tiled(lambda x, sigma, cond: self.original(x, sigma, cond=cond), x, sigma, cond)

    def apply_model(self, x, t, cond):
        return self.tiled(shared.sd_model.apply_model_original, x, t, cond)

    def unet(self, original, x, timesteps=None, context=None, **kwargs):
        out, weight = torch.zeros_like(x[:, :4]), torch.zeros_like(x[:1, :1])
        for cut in self.tiles():
            out[cut] += original(x[cut], timesteps, context, **kwargs)
            weight[cut] += 1
        return out / weight

    def tiles(self):
        return [
            (slice(None), slice(None), slice(y, y + TILE), slice(x, x + TILE))
            for y in places(self.h)
            for x in places(self.w)
        ]

    def cut(self, x, cut):
        if self.way == "strided":
            return x[cut][..., ::2, ::2].repeat_interleave(2, -1).repeat_interleave(2, -2)
        return x[cut] * 1.0001 if self.way == "padded" else x[cut]

    def tiled(self, original, x, sigma, cond):
        count = len(x)
        if x.shape[-2:] != (self.h, self.w):
            return original(x, sigma, cond)
        out, weight = torch.zeros_like(x), torch.zeros_like(x[:1, :1])
        tiles = self.tiles()
        for first in range(0, len(tiles), TOGETHER):
            cuts = tiles[first : first + TOGETHER]
            values = {k: self.repeated(v, cuts) for k, v in cond.items()}
            done = original(torch.cat([self.cut(x, c) for c in cuts]), sigma.repeat(len(cuts)), values)
            for cut, piece in zip(cuts, done.split(count), strict=True):
                out[cut] += piece
                weight[cut] += 1
        for box in self.custom_bboxes:
            cut = (slice(None), slice(None), slice(box.y, box.y + box.h), slice(box.x, box.x + box.w))
            out[cut] += self.of_region(original, x[cut], sigma, cond, cut, box)
            weight[cut] += 1
        return out / weight

    def repeated(self, value, cuts):
        if isinstance(value, list):
            return [self.repeated(value[0], cuts)]
        if value.dim() == 4 and value.shape[-2:] == (self.h, self.w):
            return torch.cat([value[c] for c in cuts])
        return value.repeat(len(cuts), *[1] * (value.dim() - 1))

    def of_region(self, original, x, sigma, cond, cut, box):
        step = self.sampler.model_wrap_cfg.step
        _, text = prompt_parser.reconstruct_multicond_batch(box.cond, step)
        negative = prompt_parser.reconstruct_cond_batch(box.uncond, step)
        key, _ = text_of(cond)
        own = {k: self.repeated(v, [cut]) for k, v in cond.items()}
        done, first = [], 0
        # Prompts of different lengths are two calls.
        for part in (text, negative) if text.shape[1] != negative.shape[1] else (torch.cat([text, negative]),):
            rows = slice(first, first + len(part))
            values = {k: [v[0][rows]] if isinstance(v, list) else v[rows] for k, v in own.items()}
            values[key] = [part] if isinstance(cond[key], list) else part
            done.append(original(x[rows], sigma[rows], values))
            first += len(part)
        return torch.cat(done)


class Script(scripts.Script):
    create_sampler = None

    def title(self):
        return "Stand-in tiles"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def ui(self, is_img2img):
        texts = (gr.Textbox(value, visible=False) for value in ("MultiDiffusion", "[]"))
        return [gr.Checkbox(visible=False), *texts]

    def process(self, p, enabled, way, regions):
        self.reset()
        if not enabled:
            return
        create = Script.create_sampler = sd_samplers.create_sampler

        def create_sampler(name, model):
            Tiles.unhook()
            sampler = create(name, model)
            Tiles(p, sampler, way, json.loads(regions)).hook()
            return sampler

        sd_samplers.create_sampler = create_sampler

    def postprocess(self, p, processed, *args):
        self.reset()

    def reset(self):
        Tiles.unhook()
        if Script.create_sampler is not None:
            sd_samplers.create_sampler, Script.create_sampler = Script.create_sampler, None
