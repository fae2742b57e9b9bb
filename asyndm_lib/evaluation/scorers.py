"""Scores of how well a picture shows its prompt, by the counter network and by packages that the
user may have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image

from . import counter as counting
from .prompts import Prompt

Scorer = Callable[[Prompt, Image.Image], float]

CLIP = "openai/clip-vit-large-patch14"


def available(device: torch.device, exact: bool) -> tuple[dict[str, Scorer], dict[str, str]]:
    """The scorers that work here, by name, and what the others lack.

    ``exact`` is true for pictures of the embedded model and prompts that say what to count.
    """
    makers: dict[str, Callable[[torch.device], Scorer]] = {"CLIPScore": _clip, "ImageReward": _image_reward}
    scorers, missing = ({"exact": _exact(device)} if exact else {}), {}
    for name, make in makers.items():
        try:
            scorers[name] = make(device)
        except Exception as error:  # whatever a foreign package raises without its weights
            missing[name] = " ".join(str(error).split())[:160] or type(error).__name__
    return scorers, missing


def _exact(device: torch.device) -> Scorer:
    network = counting.load(device)

    def score(prompt: Prompt, picture: Image.Image) -> float:
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].to(device)
        (found,) = counting.find(network, pixels / 127.5 - 1)
        return float(prompt.shown(found).exact)

    return score


def _clip(device: torch.device) -> Scorer:
    """CLIPScore: the cosine between picture and prompt (Hessel et al. 2021). Like the paper it
    leaves out the factor of 2.5."""
    from transformers import CLIPModel, CLIPProcessor

    model = CLIPModel.from_pretrained(CLIP, local_files_only=True).eval().to(device)
    processor = CLIPProcessor.from_pretrained(CLIP, local_files_only=True)

    @torch.no_grad()
    def score(prompt: Prompt, picture: Image.Image) -> float:
        inputs: Any = processor(text=[prompt.text], images=picture, return_tensors="pt", truncation=True).to(device)
        answer = model(**inputs)
        return float(torch.cosine_similarity(answer.image_embeds, answer.text_embeds))

    return score


def _image_reward(device: torch.device) -> Scorer:
    """ImageReward-v1.0 (Xu et al. 2023), by its package."""
    import ImageReward

    model = ImageReward.load("ImageReward-v1.0", device=str(device))
    return lambda prompt, picture: float(model.score(prompt.text, picture))
