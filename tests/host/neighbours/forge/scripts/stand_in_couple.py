"""Stand-in for sd-forge-couple: a line of the prompt for each part of the picture.

Its cross-attentions get the conditional rows once for the whole prompt and once for every line; of
their answers each pixel takes its line's.
"""

import gradio as gr
import modules.scripts as scripts
import torch
from modules.prompt_parser import SdConditioning


class Couple(scripts.Script):
    def title(self):
        return "Stand-in Couple"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def ui(self, is_img2img):
        return [gr.Checkbox(visible=False)]

    def process_before_every_sampling(self, p, enabled, **kwargs):
        if not enabled:
            return
        lines = SdConditioning(p.prompts[0].split("\n"), width=p.width, height=p.height)
        conds = p.sd_model.get_learned_conditioning(lines)
        conds = conds["crossattn"] if isinstance(conds, dict) else conds
        unet = p.sd_model.forge_objects.unet.clone()
        self.patch(unet, conds)
        p.sd_model.forge_objects.unet = unet

    def patch(self, unet, conds):
        lines = len(conds)

        def before(q, k, v, options):
            chunks = options["cond_or_uncond"]
            qs, ks = [], []
            for q_own, k_own, unconditional in zip(q.chunk(len(chunks)), k.chunk(len(chunks)), chunks, strict=True):
                qs += [q_own] if unconditional else [q_own] * (1 + lines)
                ks.append(k_own)
                if not unconditional:
                    own = conds.to(k).repeat(1, k.shape[1] // conds.shape[1], 1)
                    ks.append(own.repeat_interleave(len(k_own), dim=0))
            return torch.cat(qs), torch.cat(ks), torch.cat(ks)

        def after(out, options):
            chunks, results = options["cond_or_uncond"], []
            height, width = options["original_shape"][2:]
            while height * width > out.shape[1]:
                height, width = -(-height // 2), -(-width // 2)
            columns = torch.arange(width, device=out.device) * lines // width
            at = columns.repeat(height)
            n = len(out) // sum(1 if unconditional else 1 + lines for unconditional in chunks)
            for unconditional in chunks:
                own, out = out[:n], out[n:]
                if not unconditional:
                    own, out = out[: n * lines].unflatten(0, (lines, n)), out[n * lines :]
                    own = sum(own[line] * (at == line).view(1, -1, 1) for line in range(lines))
                results.append(own)
            return torch.cat(results)

        unet.set_model_attn2_patch(before)
        unet.set_model_attn2_output_patch(after)
