"""ldm's attention through PyTorch's fused kernel, which the WebUIs use too."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from typing import Any

from torch import Tensor, nn

with redirect_stdout(io.StringIO()):  # ldm announces on import that xformers is not there
    from ldm.modules.attention import CrossAttention


def scaled_dot_product(self: CrossAttention, x: Tensor, context: Tensor | None = None, mask: Any = None) -> Tensor:
    """A replacement of ``CrossAttention.forward``. It calls the projections as the original
    does."""
    context = x if context is None else context
    projected = self.to_q(x), self.to_k(context), self.to_v(context)
    q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in projected)
    return self.to_out(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
