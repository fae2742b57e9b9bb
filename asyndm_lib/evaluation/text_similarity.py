"""BERTScore (Zhang et al., ICLR 2020, arXiv 1904.09675): how much of one text another one says."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

BERT = "microsoft/deberta-xlarge-mnli"
"""The model that BERTScore's authors recommend."""

LAYER = 40
"""The layer of it whose output they recommend."""


class TextSimilarity:
    """BERTScore's model with its weights."""

    def __init__(self, device: torch.device, name: str = BERT, layer: int = LAYER):
        """Raises :class:`OSError` without the weights."""
        from transformers import AutoModel, AutoTokenizer

        self._tokenizer: Any = AutoTokenizer.from_pretrained(name, local_files_only=True)
        self._model: Any = AutoModel.from_pretrained(name, local_files_only=True).eval().to(device)
        self._layer = layer

    def recall(self, text: str, wanted: str) -> float:
        """How much of ``wanted`` is in ``text``.

        It is the mean, over the tokens of ``wanted``, of the cosine with the token of ``text`` that
        is most like it (the paper's R, without weights by rarity).
        """
        return recall(self._tokens(text), self._tokens(wanted))

    @torch.no_grad()
    def _tokens(self, text: str) -> Tensor:
        """The tokens' embeddings in their text, ``[tokens, C]``, without the marks of its ends."""
        inputs = self._tokenizer(text, return_tensors="pt", truncation=True, return_special_tokens_mask=True)
        marks = inputs.pop("special_tokens_mask")[0].bool()
        layers = self._model(**inputs.to(self._model.device), output_hidden_states=True).hidden_states
        return layers[self._layer][0].float()[~marks.to(self._model.device)]


def recall(text: Tensor, wanted: Tensor) -> float:
    """BERTScore's recall for embeddings ``[tokens, C]``; 0 if one of both is empty."""
    if not len(text) or not len(wanted):
        return 0.0
    return float((F.normalize(wanted, dim=-1) @ F.normalize(text, dim=-1).T).amax(dim=-1).mean())
