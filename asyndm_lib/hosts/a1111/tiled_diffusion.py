"""The regions of the extension Tiled Diffusion (multidiffusion-upscaler-for-automatic1111).

MultiDiffusion stands in the place of the denoiser's ``forward``, Mixture of Diffusers in that of
the model's ``apply_model``. Both keep the regions that have prompts of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from modules import extra_networks, shared

from ...clock.cells import Box
from ..common.pieces import Region, stranger


def regions(p: Any) -> Sequence[Region]:
    """The regions of the coming sampling call of ``p``, in the extension's order.

    Their prompts are the picture's, each followed by the region's own. It draws none in a second
    pass.
    """
    if getattr(p, "is_hr_pass", False):
        return ()
    denoiser = getattr(getattr(p.sampler, "model_wrap_cfg", None), "inner_model", None)
    for owner, name in ((denoiser, "forward"), (p.sd_model, "apply_model")):
        theirs = None if owner is None else stranger(owner, name)
        boxes = getattr(getattr(theirs, "__self__", None), "custom_bboxes", ())
        if boxes:
            return [Region(Box(box.y, box.x, box.h, box.w), _prompts(p, box.prompt), box.prompt) for box in boxes]
    return ()


def _prompts(p: Any, prompt: str) -> list[str]:
    # It takes the prompts of the job's first batch for all batches, and applies the styles again.
    prompts = p.all_prompts[: p.batch_size]
    own = _styled(p, prompt)
    prompts = [_styled(p, f"{text}, {own}" if own else text) for text in prompts]
    return [extra_networks.parse_prompt(text)[0] for text in prompts]


def _styled(p: Any, text: str) -> str:
    return shared.prompt_styles.apply_styles_to_prompt(text, p.styles) if p.styles else text
