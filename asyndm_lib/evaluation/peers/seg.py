"""Smoothed Energy Guidance (Hong, NeurIPS 2024, arXiv 2408.00760).

Guidance leads away from a prediction whose self-attention has blurred queries: ``e + γ·(e -
e_blurred)``. As in the paper's main experiments the blur has no limit, so every query of the middle
block becomes their mean, and γ = 3. With CFG both differences add up (the paper's eq. 13).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from torch import Tensor, nn

from .cfg import Guidance

SCALE = 3.0


class SmoothedGuidance(Guidance):
    """CFG with a third copy of the batch, which has the prompt and blurred queries."""

    copies = (True, False, True)
    read = (True, False, False)

    @contextmanager
    def attached(self, unet: nn.Module) -> Iterator[None]:
        """Hook the middle block's self-attention inside the ``with``."""
        with ExitStack() as stack:
            for module in unet.middle_block.modules():
                if hasattr(module, "attn1"):
                    stack.callback(module.attn1.to_q.register_forward_hook(_blur).remove)
            yield

    def combine(self, outputs: Sequence[Tensor]) -> Tensor:
        conditional, unconditional, blurred = outputs
        return super().combine((conditional, unconditional)) + SCALE * (conditional - blurred)


def _blur(module: nn.Module, args: tuple, queries: Tensor) -> Tensor:
    """Queries ``[3B, pixels, C]`` in which the last third has become its mean."""
    third = len(queries) // 3
    queries = queries.clone()
    queries[2 * third :] = queries[2 * third :].mean(dim=1, keepdim=True)
    return queries
