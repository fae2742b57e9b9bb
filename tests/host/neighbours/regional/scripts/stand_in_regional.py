"""Stand-in for sd-webui-regional-prompter's attention mode: each text cross-attention gets a
``forward`` that asks for the chunks of the prompt one by one, and keeps each one's region.

``BREAK`` (``ADDCOL``, ``ADDROW``, ``ADDBASE``) ends a region's chunk. The chunk of the base prompt
comes first and has a share everywhere. Keys may also be longer: what the stand-in for NegPiP adds.
"joined" columns are put together before the projection that ends an attention, so that nothing
tells which is whose.
"""

import gradio as gr
import modules.scripts as scripts
import torch
from modules import shared

TOKENS = 77
WORDS = ("ADDCOL", "ADDROW", "ADDBASE")


class Regional(scripts.Script):
    enabled = hooked = False

    def title(self):
        return "Stand-in Regional"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def ui(self, is_img2img):
        return [gr.Checkbox(visible=False), gr.Textbox("columns", visible=False), gr.Number(0, visible=False)]

    def process(self, p, enabled, direction, base):
        self.enabled = self.hooked = bool(enabled)
        if not enabled:
            return
        self.base, self.columns, self.joined = base, direction != "rows", direction == "joined"
        for prompts in (p.all_prompts, getattr(p, "all_hr_prompts", None) or []):
            for at, prompt in enumerate(prompts):
                for word in WORDS:
                    prompt = prompt.replace(word, "BREAK")
                prompts[at] = prompt
        self.regions = p.all_prompts[0].count("BREAK") + (not base)
        scales = [1, p.hr_scale] if getattr(p, "enable_hr", False) else [1]
        self.shapes = [(int(p.height * scale) // 8, int(p.width * scale) // 8) for scale in scales]
        self.count = len(p.all_prompts[0].split("BREAK"))
        for name, module in shared.sd_model.model.diffusion_model.named_modules():
            if name.endswith("attn2"):
                module.forward = self.forward_of(module)

    def postprocess(self, p, processed, *args):
        if self.hooked:
            for name, module in shared.sd_model.model.diffusion_model.named_modules():
                if name.endswith("attn2"):
                    del module.forward
        self.enabled = self.hooked = False

    def forward_of(self, module):
        def forward(x, context=None, mask=None, **options):
            chunks, rows = context.shape[1] // TOKENS, len(x)
            contexts = context.clone()
            if chunks < self.count:  # the negative prompt by itself
                return module.to_out(attended(module, x, contexts[:, :TOKENS]))
            # Both together: the negative one has as many chunks then.
            halves = [slice(None)] if rows == self.batch or rows == 1 else [slice(0, rows // 2), slice(rows // 2, None)]
            return torch.cat([self.mixed(module, x[half], contexts[half]) for half in halves])

        return forward

    batch = 1

    def process_batch(self, p, *args, **kwargs):
        self.batch = p.batch_size

    def mixed(self, module, x, contexts):
        outputs = [
            attended(module, x, torch.cat([contexts[:, n * TOKENS : (n + 1) * TOKENS], *self.more(x)], dim=1))
            for n in range(self.count)
        ]
        if not self.joined:
            outputs = [module.to_out(output) for output in outputs]
        height, width = size_of(x.shape[1], self.shapes)
        base = outputs.pop(0) if self.base else None
        outputs = [output.unflatten(1, (height, width)) for output in outputs]
        side, bounds = (2, width) if self.columns else (1, height)
        cuts = [bounds * n // len(outputs) for n in range(len(outputs) + 1)]
        parts = [output.narrow(side, a, b - a) for output, a, b in zip(outputs, cuts, cuts[1:], strict=False)]
        whole = torch.cat(parts, dim=side).flatten(1, 2)
        whole = whole if base is None else whole * (1 - self.base) + base * self.base
        return module.to_out(whole) if self.joined else whole

    def more(self, x):
        """What another script adds to every key."""
        for script in scripts.scripts_txt2img.alwayson_scripts:
            if script.title() == "Stand-in Negative Words" and script.words is not None:
                return [script.words.to(x).expand(len(x), -1, -1)]
        return []


def attended(module, x, context):
    q, k, v = module.to_q(x), module.to_k(context), module.to_v(context)
    heads = module.heads
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    attention = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(dim=-1)
    return (attention @ v).transpose(1, 2).flatten(2)


def size_of(pixels, shapes):
    """The height and width of a layer with so many pixels."""
    for height, width in shapes:
        while height * width > pixels:
            height, width = -(-height // 2), -(-width // 2)
        if height * width == pixels:
            return height, width
    raise ValueError(f"no layer has {pixels} pixels")
