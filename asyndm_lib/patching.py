"""An attribute of somebody else's object, exchanged for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from torch import Tensor, nn


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """``owner.name`` is ``value`` inside the ``with``; what this object or its class had comes back."""
    own = owner.__dict__
    had, before = name in own, own.get(name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if had:
            setattr(owner, name, before)
        else:
            delattr(owner, name)


def watched(module: nn.Module, seen: Callable[[Tensor], None]) -> AbstractContextManager[None]:
    """``seen(output)`` after every call of ``module`` inside the ``with``.

    As a forward hook, but for less: a module with any hook takes PyTorch's slower way of being called. One that
    has a forward hook already, which may exchange the output, gets another.
    """
    if module._forward_hooks:
        return module.register_forward_hook(lambda module, args, output: seen(output))  # gone at the end of a ``with``
    own = module.__dict__.get("forward")

    def forward(*args: Any, **options: Any) -> Tensor:
        # Looked up anew: the hosts exchange it in the class, also while a picture is made.
        output = type(module).forward(module, *args, **options) if own is None else own(*args, **options)
        seen(output)
        return output

    return replaced(module, "forward", forward)
