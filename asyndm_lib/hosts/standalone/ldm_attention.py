"""ldm's attention by PyTorch's fused kernel, as the WebUIs have it."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from typing import Any

from torch import Tensor, nn

with redirect_stdout(io.StringIO()):  # ldm announces on import that xformers is not there
    from ldm.modules.attention import CrossAttention


def scaled_dot_product(self: CrossAttention, x: Tensor, context: Tensor | None = None, mask: Any = None) -> Tensor:
    """In the place of ``CrossAttention.forward``; the projections are called as ever."""
    context = x if context is None else context
    projected = self.to_q(x), self.to_k(context), self.to_v(context)
    q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in projected)
    return self.to_out(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
