"""Scores of how well a picture shows its prompt, by the counter network and by models that the user
may have.

Nothing is downloaded, and no model is loaded before its first score is asked for.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cache
from itertools import starmap
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from . import counter as counting
from . import detectors, geneval
from .manifest import digest
from .prompts import Prompt
from .text_similarity import BERT, TextSimilarity
from .vision_language import QWEN, VisionLanguageModel
from .weights import WEIGHTS, absent, package

Score = Callable[[Prompt, Image.Image], float]


@dataclass(frozen=True)
class Scorer:
    """A score of how well a picture shows its prompt.

    ``load`` gives it, with its model; ``made_of``: what decides it, as its weights.
    """

    load: Callable[[], Score]
    made_of: str


CLIP = "openai/clip-vit-large-patch14"
IMAGE_REWARD = "ImageReward-v1.0"
VQA = "clip-flant5-xxl"
VQA_PARTS = {
    f"zhiqiulin/{VQA}": WEIGHTS,
    "openai/clip-vit-large-patch14-336": WEIGHTS,
    "google/flan-t5-xxl": ("spiece.model",),
}

NAMES = ("CLIPScore", "ImageReward", "GenEval", "VQAScore", "BERTScore", "QwenScore")
"""All but the counter's. Those that share a model stand together."""

GET = {
    "CLIPScore": f"python -c \"import transformers as t; t.CLIPModel.from_pretrained('{CLIP}'); "
    f"t.CLIPProcessor.from_pretrained('{CLIP}')\" (1.7 GB)",
    "ImageReward": "pip install image-reward, and "
    f"python -c \"import ImageReward as i; i.load('{IMAGE_REWARD}')\" (1.8 GB)",
    "GenEval": f"pip install ultralytics, and {detectors.YOLO} in this folder (115 MB); or hf download {detectors.OWL} "
    "(1.7 GB)",
    "VQAScore": f"pip install t2v-metrics, and hf download {' and '.join(VQA_PARTS)} (of the last its tokenizer)",
    "BERTScore": f"that for QwenScore, and hf download {BERT} (3.0 GB)",
    "QwenScore": f"transformers 4.49 or later, and hf download {QWEN} (16.6 GB)",
}
"""How one gets what a scorer needs."""


def available(
    device: torch.device, exact: bool, names: Collection[str] = NAMES
) -> tuple[dict[str, Scorer], dict[str, str]]:
    """The scorers of ``names`` that work here, and what the others lack.

    ``exact``: whether the counter's is there too, for pictures of the embedded model and prompts
    that say what to count.
    """
    lacking = {
        "CLIPScore": lambda: package("transformers") or absent(CLIP),
        "ImageReward": lambda: package("ImageReward") or _no_image_reward(),
        "GenEval": detectors.lacking,
        "VQAScore": lambda: package("t2v_metrics") or next(filter(None, starmap(absent, VQA_PARTS.items())), None),
        "BERTScore": lambda: _no_qwen() or absent(BERT),
        "QwenScore": _no_qwen,
    }
    qwen = cache(lambda: VisionLanguageModel(device, QWEN))
    here = {"exact": lambda: Scorer(lambda: _exact(device), digest(counting.WEIGHTS))} if exact else {}
    here |= {
        "CLIPScore": lambda: Scorer(lambda: _clip(device), CLIP),
        "ImageReward": lambda: Scorer(lambda: _image_reward(device), IMAGE_REWARD),
        "GenEval": lambda: Scorer(lambda: _geneval(device), detectors.kind()),
        "VQAScore": lambda: Scorer(lambda: _vqa(device), VQA),
        "BERTScore": lambda: Scorer(lambda: _bert(device, qwen), f"{BERT}, captions by {QWEN}"),
        "QwenScore": lambda: Scorer(lambda: _rating(qwen), QWEN),
    }
    missing = {name: why for name, ask in lacking.items() if name in names and (why := ask())}
    return {name: make() for name, make in here.items() if name in {"exact", *names} - set(missing)}, missing


def _no_image_reward() -> str | None:
    folder = Path("~/.cache/ImageReward").expanduser()  # the package's own
    return None if (folder / "ImageReward.pt").is_file() else f"the weights of {IMAGE_REWARD} are not in {folder}"


def _no_qwen() -> str | None:
    if why := package("transformers"):
        return why
    import transformers

    if not hasattr(transformers, "Qwen2_5_VLForConditionalGeneration"):
        return f"transformers {transformers.__version__} has no Qwen2.5-VL, 4.49 has"
    return absent(QWEN)


def _exact(device: torch.device) -> Score:
    network = counting.load(device)

    def score(prompt: Prompt, picture: Image.Image) -> float:
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].to(device)
        (found,) = counting.find(network, pixels / 127.5 - 1)
        return float(prompt.shown(found).exact)

    return score


def _clip(device: torch.device) -> Score:
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


def _image_reward(device: torch.device) -> Score:
    """ImageReward-v1.0 (Xu et al. 2023), by its package."""
    import ImageReward

    model = ImageReward.load(IMAGE_REWARD, device=str(device))
    return lambda prompt, picture: float(model.score(prompt.text, picture))


def _geneval(device: torch.device) -> Score:
    """1 where a detector finds what a :class:`geneval.Scene` asks for, else 0."""
    detect = detectors.load(device, geneval.NAMES)

    def score(prompt: Prompt, picture: Image.Image) -> float:
        assert isinstance(prompt, geneval.Scene)
        return float(geneval.shows(prompt, detect(picture), picture))

    return score


def _vqa(device: torch.device) -> Score:
    """VQAScore (Lin et al. 2024), by its package: how likely "yes" is the answer to whether the
    picture shows the prompt."""
    import t2v_metrics
    from huggingface_hub.constants import HF_HUB_CACHE

    # By itself the package has a cache in the present folder.
    model = t2v_metrics.VQAScore(model=VQA, device=str(device), cache_dir=HF_HUB_CACHE)

    def score(prompt: Prompt, picture: Image.Image) -> float:
        with tempfile.TemporaryDirectory() as folder:  # the package reads files
            file = Path(folder) / "picture.png"
            picture.save(file)
            return float(model(images=[str(file)], texts=[prompt.text])[0, 0])

    return score


def _bert(device: torch.device, qwen: Callable[[], VisionLanguageModel]) -> Score:
    """BERTScore: how much of the prompt is in what Qwen2.5-VL says of the picture."""
    model, similarity = qwen(), TextSimilarity(device, BERT)
    return lambda prompt, picture: similarity.recall(model.caption(picture), prompt.text)


def _rating(qwen: Callable[[], VisionLanguageModel]) -> Score:
    """QwenScore: how well Qwen2.5-VL says that the picture shows the prompt, 0 to 9."""
    model = qwen()
    return lambda prompt, picture: float(model.rating(picture, prompt.text))
