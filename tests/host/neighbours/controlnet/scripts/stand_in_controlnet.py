"""Stand-in for sd-webui-controlnet: a UNet forward of its own, marked prompts, a control model, a
reference picture.

The reference picture goes through the host's own forward first, noised to the timestep of the call,
and the self-attentions of the pass that follows look at it too. The forward stays in place until
the next job.
"""

import hashlib

import gradio as gr
import modules.scripts as scripts
import torch
from fastapi import FastAPI
from ldm.modules.attention import BasicTransformerBlock
from ldm.modules.diffusionmodules.util import timestep_embedding
from modules import script_callbacks, sd_hijack_unet
from modules.prompt_parser import ComposableScheduledPromptConditioning, MulticondLearnedConditioning

MARK = 1024.0
TIME_CHANNELS = 64
seen = {"timesteps": [], "references": []}


def marked(conditioning):
    """The prompts with a token before each one's first, by which the forward knows them."""
    if isinstance(conditioning, MulticondLearnedConditioning):
        return MulticondLearnedConditioning(conditioning.shape, marked(conditioning.batch))
    if isinstance(conditioning, ComposableScheduledPromptConditioning):
        return ComposableScheduledPromptConditioning(marked(conditioning.schedules), conditioning.weight)
    if isinstance(conditioning, list):
        return [marked(part) for part in conditioning]
    token = torch.full_like(conditioning.cond[:1], MARK)
    return conditioning._replace(cond=torch.cat([token, conditioning.cond]))


def unmarked(context):
    is_marked = (context[:, 0] - MARK).abs().max() < 1e-3
    return context[:, 1:] if is_marked else context


class ControlModel(torch.nn.Module):
    """A model that makes something to add to a feature map, from a picture and each row's time."""

    def forward(self, timesteps, h):
        (rows,) = timesteps.shape
        channels, height, width = h.shape[1:]
        random = torch.Generator().manual_seed(channels)
        directions = torch.randn(TIME_CHANNELS, channels, generator=random).to(h)
        picture = torch.linspace(-1, 1, width).expand(height, width).to(h)
        added = timestep_embedding(timesteps, TIME_CHANNELS).to(h) @ directions
        return added.view(rows, channels, 1, 1) * picture


class Hook:
    """The UNet with a forward of its own, until :meth:`undo`."""

    def __init__(self, sd_model, weight, reference):
        self.unet, self.alphas = sd_model.model.diffusion_model, sd_model.alphas_cumprod
        self.weight, self.reference = weight, reference
        self.control, self.own = ControlModel(), self.unet.forward
        self.writing, self.banks = False, {}
        self.blocks = [m for m in self.unet.modules() if reference and isinstance(m, BasicTransformerBlock)]
        self.unet.forward = self.forward
        for block in self.blocks:
            block._forward = self.attention(block)

    def undo(self):
        del self.unet.forward
        for block in self.blocks:
            del block._forward

    def forward(self, x, timesteps=None, context=None, y=None, **kwargs):
        unet, context = self.unet, unmarked(context)
        if self.reference:
            self.writing = True
            out = self.own(self.noised(x, timesteps), timesteps, context)
            self.writing = False
            seen["references"].append(hashlib.md5(out.numpy().tobytes()).hexdigest())
        seen["timesteps"].append(timesteps.tolist())
        emb = unet.time_embed(timestep_embedding(timesteps, unet.model_channels))
        h, skips = x, []
        for block in unet.input_blocks:
            h = block(h, emb, context)
            skips.append(self.controlled(timesteps, h))
        h = self.controlled(timesteps, unet.middle_block(h, emb, context))
        for block in unet.output_blocks:
            h = block(sd_hijack_unet.th.cat([h, skips.pop()], dim=1), emb, context)
        return unet.out(h.type(x.dtype))

    def controlled(self, timesteps, h):
        return h + self.weight * self.control(timesteps, h)

    def noised(self, x, timesteps):
        random = torch.Generator().manual_seed(1)
        picture = torch.linspace(-1, 1, x.shape[-2])[:, None].expand(x.shape).to(x)
        noise = torch.randn(x.shape, generator=random).to(x)
        alpha = self.alphas[timesteps.round().long()].view(-1, 1, 1, 1).to(x)
        return alpha.sqrt() * picture + (1 - alpha).sqrt() * noise

    def attention(self, block):
        def forward(x, context=None):
            normed = keys = block.norm1(x)
            if self.writing:
                self.banks[block] = normed
            else:
                keys = torch.cat([normed, self.banks[block]], dim=1)
            x = block.attn1(normed, context=keys) + x
            x = block.attn2(block.norm2(x), context=context) + x
            return block.ff(block.norm3(x)) + x

        return forward


class ControlNet(scripts.Script):
    hook = None  # of both tabs: there is one UNet

    def title(self):
        return "Stand-in ControlNet"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def ui(self, is_img2img):
        return [gr.Checkbox(visible=False), gr.Number(visible=False), gr.Checkbox(visible=False)]

    def process(self, p, enabled, weight, reference):
        if ControlNet.hook is not None:
            ControlNet.hook.undo()
        ControlNet.hook = Hook(p.sd_model, weight, reference) if enabled else None
        if not enabled:
            return
        sample = p.sample

        def with_marks(conditioning, unconditional_conditioning, **kwargs):
            return sample(marked(conditioning), marked(unconditional_conditioning), **kwargs)

        p.sample = with_marks


def add_routes(_: gr.Blocks, app: FastAPI):
    @app.post("/stand-in-controlnet/seen")
    def take():
        taken = {name: list(values) for name, values in seen.items()}
        for values in seen.values():
            values.clear()
        return taken


script_callbacks.on_app_started(add_routes)
