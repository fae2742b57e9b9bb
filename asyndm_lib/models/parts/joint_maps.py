"""Token maps of a joint attention, in which picture and prompt attend to each other as one row of
tokens (docs/METHOD.md, section 5).

There are two rules. :class:`AttentionMaps` are ``softmax(q·kᵀ·scale)`` over ALL tokens, the
picture's too, as for a cross-attention. :class:`OutputMaps` say how like the attention's output at
a cell is to that at a target's tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, pad

from ..family import Size
from .attention_sum import no_autocast, summed_fused
from .own_pass import OwnPass
from .patching import watched
from .recorded_maps import RecordedMaps


@dataclass(frozen=True)
class JointLayer:
    """The projections of one joint attention, for each of its two streams of tokens.

    Through ``ln_q`` and ``ln_k`` go its queries and keys ``[n, tokens, heads, d]``, and into
    ``proj`` goes its output ``[n, tokens, heads·d]``.
    """

    text: Any
    picture: Any


@dataclass(frozen=True)
class JointLayers:
    """The places of a transformer where token maps are read.

    ``size``: rows and columns of the picture's tokens, which come first in their stream; reference
    pictures and pads may follow. ``before``: how many tokens (registers) come before the prompt's
    in theirs; pads may follow.
    """

    layers: Sequence[JointLayer]
    size: Size
    before: int
    own_pass: OwnPass


Summed = Callable[[Tensor, Tensor, Tensor, float], Tensor]
"""``softmax(q·kᵀ·scale) @ weights``, summed over heads: :func:`attention_sum.summed`, or
:func:`fused`."""


class _JointMaps(RecordedMaps):
    """What both rules share: a :class:`family.TokenMaps` of a transformer.

    A layer is read as soon as its :meth:`taps` have all been seen.
    """

    def __init__(self, layers: JointLayers):
        super().__init__(layers.own_pass, layers.size)
        self._layers = layers
        self._seen: dict[tuple[int, str], Tensor] = {}

    def taps(self, layer: JointLayer) -> dict[str, Callable[[Callable], AbstractContextManager]]:
        """By name what watches the tensors that a layer's map is made of."""
        raise NotImplementedError

    def maps(self, seen: dict[str, Tensor], weights: Tensor) -> Tensor:
        """A layer's map ``[rows, cells, T]`` of the rows that are read.

        ``seen``: what :meth:`taps` saw, of those rows. ``weights``: ``[rows, prompt's tokens, T]``.
        """
        raise NotImplementedError

    def attach(self) -> None:
        """Put the hooks on the model."""
        super().attach()
        for number, layer in enumerate(self._layers.layers):
            taps = self.taps(layer)
            for name, watch in taps.items():
                self._attached.enter_context(watch(partial(self._saw, number, list(taps), name)))

    def _end(self) -> None:
        super()._end()
        self._seen.clear()

    @torch.no_grad()
    def _saw(self, number: int, names: Sequence[str], name: str, tensor: Tensor) -> None:
        if self._weights is None or not self._layers.own_pass.here:
            return
        self._seen[number, name] = tensor[self._at]
        if not all((number, name) in self._seen for name in names):
            return
        seen = {name: self._seen.pop((number, name)) for name in names}
        text = seen["text"].shape[1] - self._layers.before
        if text > 0 and seen["picture"].shape[1] >= self._cells:
            weights = self._weights(text, tensor.device)
            with no_autocast(tensor.device):
                self._add(self.maps(seen, weights))


class AttentionMaps(_JointMaps):
    """How much of its attention each cell gives to a target's tokens: the mean over heads and
    layers.

    Queries and keys are seen as the attention gets them. ``summed`` is the form of it.
    """

    def __init__(self, layers: JointLayers, summed: Summed):
        super().__init__(layers)
        self._summed = summed

    def taps(self, layer: JointLayer) -> dict[str, Callable[[Callable], AbstractContextManager]]:
        """The picture's queries, and the keys of both streams."""
        return {
            "query": partial(watched, layer.picture.ln_q),
            "text": partial(watched, layer.text.ln_k),
            "picture": partial(watched, layer.picture.ln_k),
        }

    def maps(self, seen: dict[str, Tensor], weights: Tensor) -> Tensor:
        """The mean over heads of ``softmax(q·kᵀ·scale) @ weights``."""
        query = seen["query"][:, : self._cells]
        key = torch.cat([seen["text"], seen["picture"]], dim=1)
        before = self._layers.before
        weights = pad(weights, (0, 0, before, key.shape[1] - before - weights.shape[1]))
        q, k = (precise(x).transpose(1, 2) for x in (query, key))
        return self._summed(q, k, weights.to(q), q.shape[-1] ** -0.5) / q.shape[1]


class OutputMaps(_JointMaps):
    """How much more a cell's output of the attention is like that of a target's tokens than like
    that of all tokens of the prompt: the mean over layers.

    Likeness is the cosine. A map holds what is above 0, so that a mask's threshold is a multiple of
    its mean.
    """

    def taps(self, layer: JointLayer) -> dict[str, Callable[[Callable], AbstractContextManager]]:
        """The outputs at both streams."""
        return {name: partial(_entered, getattr(layer, name).proj) for name in ("text", "picture")}

    def maps(self, seen: dict[str, Tensor], weights: Tensor) -> Tensor:
        """``cos(o, mean of the target's) - cos(o, mean of the prompt's)``."""
        picture = normalize(seen["picture"][:, : self._cells].float(), dim=-1)
        text = seen["text"][:, self._layers.before :].float()
        share = weights.float().sum(dim=1)[:, None]  # an AND part may hold only some of the target
        words = normalize(weights.float().transpose(1, 2) @ text, dim=-1) * share.transpose(1, 2)
        prompt = normalize(text.mean(dim=1, keepdim=True), dim=-1) * share.transpose(1, 2)
        return (picture @ (words - prompt).transpose(1, 2)).clamp(min=0)


def fused(q: Tensor, k: Tensor, weights: Tensor, scale: float) -> Tensor:
    """:func:`attention_sum.summed` by the kernel that writes no scores.

    ``weights [rows, tokens, T]`` are its values, as wide as a head, which every fused kernel takes.
    """
    size, targets = q.shape[-1], weights.shape[-1]
    values = pad(weights, (0, -targets % size)).split(size, dim=-1)
    return torch.cat([summed_fused(q, k, own, scale) for own in values], dim=-1)[..., :targets]


@contextmanager
def _entered(module: nn.Module, seen: Callable[[Tensor], None]) -> Iterator[None]:
    """``seen(input)`` before every call of ``module`` inside the ``with``."""
    with module.register_forward_pre_hook(lambda module, args: seen(args[0])):
        yield


def precise(x: Tensor) -> Tensor:
    """``x`` in the precision to work in: half on CUDA, where scores are not rounded to it, for the
    kernels' sake. bfloat16 is too coarse for a threshold.
    """
    if x.is_cuda and x.dtype in (torch.float16, torch.bfloat16):
        return x.half()
    return x.to(torch.promote_types(x.dtype, torch.float32))
