"""Stand-in for ADetailer: an img2img job inside ``postprocess_image``, with the scripts whose file
names are listed."""

from copy import copy
from pathlib import Path

import gradio as gr
import modules.scripts as scripts
from modules.processing import Processed, StableDiffusionProcessingImg2Img, process_images
from PIL import Image, ImageDraw


class Detailer(scripts.Script):
    def title(self):
        return "Stand-in ADetailer"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def ui(self, is_img2img):
        return [gr.Checkbox(visible=False), gr.Textbox(visible=False), gr.Textbox(visible=False)]

    def postprocess_image(self, p, pp, enabled, listed, prompt):
        if not enabled or getattr(p, "nested", False):
            return
        if p.batch_index == 0:
            prompts = copy(p.all_prompts)
            p.scripts.postprocess(copy(p), Processed(p, [], p.seed, ""))
            p.all_prompts = prompts
        pp.image = self.detailed(p, pp.image, listed, prompt)
        if p.batch_index == p.batch_size - 1:
            again = copy(p)
            p.scripts.before_process(again)
            p.scripts.process(again)

    def detailed(self, p, image, listed, prompt):
        at = p.iteration * p.batch_size + p.batch_index
        inner = StableDiffusionProcessingImg2Img(
            init_images=[image],
            resize_mode=0,
            denoising_strength=0.9,  # of few steps enough are left for a pixel to lag
            mask_blur=2,
            inpainting_fill=1,
            inpaint_full_res=True,
            inpaint_full_res_padding=8,
            sd_model=p.sd_model,
            prompt=prompt or p.all_prompts[at],
            negative_prompt=p.all_negative_prompts[at],
            seed=p.all_seeds[at],
            sampler_name=p.sampler_name,
            scheduler=p.scheduler,
            steps=p.steps,
            cfg_scale=p.cfg_scale,
            width=p.width,
            height=p.height,
            extra_generation_params={k: v for k, v in p.extra_generation_params.items() if not callable(v)},
            do_not_save_samples=True,
            do_not_save_grid=True,
        )
        inner.cached_c, inner.cached_uc = [None, None], [None, None]
        runner, names = copy(p.scripts), [name.strip() for name in listed.split(",")]
        runner.alwayson_scripts = [s for s in runner.alwayson_scripts if Path(s.filename).stem in names]
        inner.scripts, inner.script_args = runner, copy(p.script_args)
        inner.nested = True
        inner.image_mask = Image.new("L", image.size)
        width, height = image.size
        ImageDraw.Draw(inner.image_mask).rectangle((width // 4, height // 4, width // 2, height // 2), fill=255)
        try:
            return process_images(inner).images[0]
        finally:
            inner.close()
