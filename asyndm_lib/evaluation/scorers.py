"""Scores of how well a picture shows its prompt, by the counter network and by packages that the
user may have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from . import counter as counting
from .manifest import digest
from .prompts import Prompt


@dataclass(frozen=True)
class Scorer:
    """A score of how well a picture shows its prompt. ``made_of``: what decides it, as its
    weights."""

    score: Callable[[Prompt, Image.Image], float]
    made_of: str

    def __call__(self, prompt: Prompt, picture: Image.Image) -> float:
        """The score of one picture."""
        return self.score(prompt, picture)


CLIP = "openai/clip-vit-large-patch14"
IMAGE_REWARD = "ImageReward-v1.0"

GET = {
    "CLIPScore": f"python -c \"import transformers as t; t.CLIPModel.from_pretrained('{CLIP}'); "
    f"t.CLIPProcessor.from_pretrained('{CLIP}')\" (1.7 GB)",
    "ImageReward": "pip install image-reward (and its weights, 1.8 GB, at its first use)",
}
"""How one gets what a scorer needs."""


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

    return Scorer(score, digest(counting.WEIGHTS))


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

    return Scorer(score, CLIP)


def _image_reward(device: torch.device) -> Scorer:
    """ImageReward-v1.0 (Xu et al. 2023), by its package."""
    import ImageReward

    model = ImageReward.load(IMAGE_REWARD, device=str(device))
    return Scorer(lambda prompt, picture: float(model.score(prompt.text, picture)), IMAGE_REWARD)
