"""Stand-in for sd-webui-negpip: words that the picture is to lack are added to every key of the
text cross-attentions, with their values turned.

Each attention gets a ``forward`` that goes by halves of the batch, with one key for each.
"""

import gradio as gr
import modules.scripts as scripts
import torch
from modules import devices, prompt_parser, shared


class NegativeWords(scripts.Script):
    words = None
    hooked = False

    def title(self):
        return "Stand-in Negative Words"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def ui(self, is_img2img):
        return [gr.Textbox(visible=False)]

    def process_batch(self, p, words="", **kwargs):
        self.words = None
        if not words:
            return
        with devices.autocast():
            cond = prompt_parser.get_learned_conditioning(shared.sd_model, [words], p.steps)[0][0].cond
        cond = cond["crossattn"] if isinstance(cond, dict) else cond
        self.words = cond[None, 1 : 2 + len(words.split())]
        beside = [s for s in scripts.scripts_txt2img.alwayson_scripts if s.title() == "Stand-in Regional"]
        if not any(script.hooked for script in beside):
            self.hooked = True
            for module in attentions():
                module.forward = self.forward_of(module, p.batch_size)

    def postprocess(self, p, processed, *args):
        if self.hooked:
            for module in attentions():
                del module.forward
        self.words, self.hooked = None, False

    def forward_of(self, module, batch):
        def forward(x, context=None, mask=None, **options):
            halves = [(x, context)] if len(x) == batch else zip(x.chunk(2), context.chunk(2), strict=True)
            return torch.cat([self.attended(module, *half) for half in halves])

        return forward

    def attended(self, module, x, context):
        context = torch.cat([context, self.words.to(context).expand(len(context), -1, -1)], dim=1)
        q, k, v = module.to_q(x), module.to_k(context), module.to_v(context)
        added = self.words.shape[1]
        v[:, -added:] = -v[:, -added:]
        q, k, v = (t.unflatten(-1, (module.heads, -1)).transpose(1, 2) for t in (q, k, v))
        out = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        return module.to_out(out.transpose(1, 2).flatten(2))


def attentions():
    modules = shared.sd_model.model.diffusion_model.named_modules()
    return [module for name, module in modules if name.endswith("attn2")]
