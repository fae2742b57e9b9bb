"""What a GroupNorm by level makes of the layer's own output, in one kernel where there is a GPU."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

KERNEL = """
template <typename T> T renormalised(T y, T weight, T bias, T shift, T gain) {
    return y + (y - bias) * gain - weight * shift;
}
"""


def renormalised(y: Tensor, weight: Tensor, bias: Tensor, shift: Tensor, gain: Tensor) -> Tensor:
    """``y + (y - bias)·gain - weight·shift``, in the shape and type of ``y``. All are of one type,
    and of shapes that broadcast to it.

    To the bit ``y`` where ``shift`` and ``gain`` are 0. Gradients with respect to ``y`` can be had.
    """
    fused = _fused(y.device, y.dtype) if y.is_cuda and not y.requires_grad else None
    return (fused or plain)(y, weight, bias, shift, gain)


def plain(y: Tensor, weight: Tensor, bias: Tensor, shift: Tensor, gain: Tensor) -> Tensor:
    """The formula of :func:`renormalised`, in PyTorch's operations."""
    # Not by y - bias, which half precision may not hold.
    scaled = torch.addcmul(y, y, gain)
    return torch.addcmul(torch.addcmul(scaled, bias, gain, value=-1), weight, shift, value=-1)


@cache
def _fused(device: torch.device, dtype: torch.dtype) -> Callable[..., Tensor] | None:
    """The formula as one kernel, which knows no gradients; None where PyTorch has no compiler for
    it."""
    try:
        kernel = torch.cuda.jiterator._create_jit_fn(KERNEL)
        kernel(*torch.zeros(5, 1, device=device, dtype=dtype))
    except Exception:
        return None
    return kernel
