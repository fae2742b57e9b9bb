"""Qwen2.5-VL (Bai et al. 2025): what a picture shows in words, and how well it fits a prompt."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from torch import Tensor

QWEN = "Qwen/Qwen2.5-VL-7B-Instruct"

CAPTION = "Describe this picture in one sentence."
RATE = (
    "How well does this picture show what the following text says? Look at the things, their number, colours, places "
    "and what they do. Answer with one digit from 0 (not at all) to 9 (all of it).\nText: {}"
)
"""The questions. The paper does not print its own."""

LENGTH = 64
"""The most tokens of a caption."""


class VisionLanguageModel:
    """Qwen2.5-VL with its weights."""

    def __init__(self, device: torch.device, name: str = QWEN):
        """Raises :class:`ImportError` if transformers has no such model, and :class:`OSError`
        without the weights."""
        from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

        model: Any = Qwen2_5_VLForConditionalGeneration
        self._model = model.from_pretrained(name, local_files_only=True, torch_dtype="auto").eval().to(device)
        self._processor: Any = AutoProcessor.from_pretrained(name, local_files_only=True)
        self._digits = [self._token(str(digit)) for digit in range(10)]

    @torch.no_grad()
    def caption(self, picture: Image.Image) -> str:
        """What the picture shows. The likeliest words are taken, so that it is always the same."""
        inputs = self._asked(picture, CAPTION)
        tokens = self._model.generate(**inputs, do_sample=False, max_new_tokens=LENGTH)
        new = tokens[:, inputs["input_ids"].shape[1] :]
        (text,) = self._processor.batch_decode(new, skip_special_tokens=True)
        return str(text).strip()

    @torch.no_grad()
    def rating(self, picture: Image.Image, text: str) -> int:
        """How well the picture shows ``text``, 0 to 9: the digit that the model answers likeliest.
        """
        logits: Tensor = self._model(**self._asked(picture, RATE.format(text))).logits
        return int(logits[0, -1, self._digits].argmax())

    def _asked(self, picture: Image.Image, question: str) -> Any:
        content = [{"type": "image"}, {"type": "text", "text": question}]
        chat = self._processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        return self._processor(text=[chat], images=[picture], return_tensors="pt").to(self._model.device)

    def _token(self, text: str) -> int:
        (token,) = self._processor.tokenizer.encode(text, add_special_tokens=False)
        return int(token)
