"""Whether the layers of a model can be watched while it runs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from ...errors import Unsupported

_NOT_PYTHON = (torch._C.ScriptMethod, torch._C.ScriptFunction, type(len))


def check_reach(modules: Iterable[nn.Module]) -> None:
    """Raise :class:`Unsupported` if one of ``modules`` runs as something that was made of it.

    What torch.compile or TorchScript has traced, and a CUDA graph recorded, runs no hooks of the
    layers in it.
    """
    for module in modules:
        if _closed(module):
            name = type(getattr(module, "_orig_mod", module)).__name__
            raise Unsupported(
                f"{name}, the model or a part of it, is compiled (torch.compile, TorchScript, a CUDA graph), and its "
                "layers cannot be reached; switch that off"
            )


def _closed(module: nn.Module) -> bool:
    if getattr(module, "_compiled_call_impl", None) or "_orig_mod" in module._modules:
        return True
    if isinstance(module, torch.jit.ScriptModule):
        return True
    forward: Any = module.__dict__.get("forward")
    if forward is None:
        return False
    graphed = "make_graphed_callables" in getattr(forward, "__qualname__", "")
    return graphed or hasattr(forward, "_torchdynamo_orig_callable") or isinstance(forward, _NOT_PYTHON)
