"""Token maps of attentions that a model works out by one function.

Forge's relatives have a function ``attention_function(q, k, v, heads, …)`` in the modules of their
transformers. It is given queries and keys as they meet, normed and turned by their places.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from ...errors import Unsupported
from ..family import Size
from .attention_sum import no_autocast
from .joint_maps import Summed, fused, precise
from .own_pass import OwnPass
from .patching import replaced, watched
from .recorded_maps import RecordedMaps

FUNCTION = "attention_function"


@dataclass(frozen=True)
class FunctionLayers:
    """The places of a transformer where token maps are read.

    ``modules``: each works out one attention with the prompt. ``size``: rows and columns of the
    picture's tokens. ``text`` makes the tokens ``[n, tokens, D]`` that come before them in the row
    of queries; without it they come first. ``behind``: whether the prompt's tokens come last in the
    row of keys, and not first.
    """

    modules: Sequence[nn.Module]
    size: Size
    own_pass: OwnPass
    text: nn.Module | None = None
    behind: bool = False


class FunctionMaps(RecordedMaps):
    """How much of its attention each cell gives to a target's tokens: the mean over heads and
    layers of ``softmax(q·kᵀ·scale)`` over all tokens.

    ``summed`` is the form of it.
    """

    def __init__(self, layers: FunctionLayers, summed: Summed = fused):
        super().__init__(layers.own_pass, layers.size)
        self._layers, self._summed = layers, summed
        self._before = 0

    def attach(self) -> None:
        """Put the hooks on the model."""
        super().attach()
        if self._layers.text is not None:
            self._attached.enter_context(watched(self._layers.text, self._after_text))
        for module in self._layers.modules:
            forward = partial(self._seen_through, function_globals(module), module.forward)
            self._attached.enter_context(replaced(module, "forward", forward))

    def _after_text(self, output: Tensor) -> None:
        self._before = output.shape[1]

    def _seen_through(self, names: dict[str, Any], forward: Callable, *args: Any, **kwargs: Any) -> Any:
        """The module's ``forward``, in which the attention's queries and keys are seen."""
        if self._weights is None:
            return forward(*args, **kwargs)
        with _exchanged(names, partial(self._attend, names[FUNCTION])):
            return forward(*args, **kwargs)

    def _attend(self, attend: Callable, q: Tensor, k: Tensor, v: Tensor, heads: int, *args: Any, **kwargs: Any) -> Any:
        self._see(q, k, heads, kwargs.get("skip_reshape", False))
        return attend(q, k, v, heads, *args, **kwargs)

    @torch.no_grad()
    def _see(self, q: Tensor, k: Tensor, heads: int, apart: bool) -> None:
        """Read ``q`` and ``k``: ``[n, heads, tokens, d]`` where the heads are ``apart``, else ``[n,
        tokens, heads·d]``.
        """
        context = self._own_pass.context
        if self._weights is None or context is None or not self._own_pass.here:
            return
        q, k = q[self._at], k[self._at]
        if not apart:
            q, k = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k))
        words, tokens = context.shape[-2], k.shape[2]
        if q.shape[2] < self._before + self._cells or words != tokens < words + self._cells:
            return  # it is none with the prompt
        before = tokens - words if self._layers.behind else 0
        weights = pad(self._weights(words, k.device), (0, 0, before, tokens - words - before))
        q, k = precise(q[:, :, self._before : self._before + self._cells]), precise(k)
        with no_autocast(k.device):
            self._add(self._summed(q, k, weights.to(q), q.shape[-1] ** -0.5) / q.shape[1])


def function_globals(module: nn.Module) -> dict[str, Any]:
    """Where the attention of ``module`` looks its function up.

    Raises :class:`Unsupported` where it does not: another program has replaced the model's classes.
    """
    names = vars(sys.modules[type(module).__module__])
    names = getattr(names.get("attention"), "__globals__", names)
    if not callable(names.get(FUNCTION)):
        raise Unsupported(
            f"this model ({type(module).__name__} of {type(module).__module__}) works its attention out in a way that "
            "AsynDM does not know"
        )
    return names


@contextmanager
def _exchanged(names: dict[str, Any], function: Callable) -> Iterator[None]:
    before, names[FUNCTION] = names[FUNCTION], function
    try:
        yield
    finally:
        names[FUNCTION] = before
