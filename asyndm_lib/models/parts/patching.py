"""An attribute of somebody else's object, exchanged for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from torch import Tensor, nn


class replaced:  # noqa: N801 - it stands where a function of contextlib's would
    """``owner.name`` is ``value`` inside the ``with``; what this object or its class had comes
    back.

    A class and not a generator, and past a module's own ``setattr``: a run exchanges a hundred of
    them.
    """

    __slots__ = ("_before", "_had", "_name", "_owner", "_value")

    def __init__(self, owner: Any, name: str, value: Any):
        self._owner, self._name, self._value = owner, name, value

    def __enter__(self) -> None:
        own = self._owner.__dict__
        self._had, self._before = self._name in own, own.get(self._name)
        self._set(self._value)

    def __exit__(self, *exception: object) -> None:
        if self._had:
            self._set(self._before)
        elif isinstance(self._owner, nn.Module):
            del self._owner.__dict__[self._name]
        else:
            delattr(self._owner, self._name)

    def _set(self, value: Any) -> None:
        if isinstance(self._owner, nn.Module):
            self._owner.__dict__[self._name] = value
        else:
            setattr(self._owner, self._name, value)


@contextmanager
def _hooked(module: nn.Module, seen: Callable[[Tensor, Tensor], None]) -> Iterator[None]:
    def hook(module: nn.Module, args: tuple, options: dict[str, Any], output: Tensor) -> None:
        seen(_first(args, options), output)

    with module.register_forward_hook(hook, with_kwargs=True):
        yield


def watched(module: nn.Module, seen: Callable[[Tensor], None]) -> AbstractContextManager[None]:
    """``seen(output)`` after every call of ``module`` inside the ``with``; see :func:`followed`."""
    return followed(module, lambda input, output: seen(output))


def followed(module: nn.Module, seen: Callable[[Tensor, Tensor], None]) -> AbstractContextManager[None]:
    """``seen(input, output)`` after every call of ``module`` inside the ``with``.

    The input is the call's first argument.

    It costs less than a forward hook: a module with any hook takes PyTorch's slower way of being
    called. A module that has a forward hook already, which may exchange the output, gets another.
    """
    if module._forward_hooks:
        return _hooked(module, seen)
    own = module.__dict__.get("forward")

    def forward(*args: Any, **options: Any) -> Tensor:
        # Looked up anew: the hosts exchange it in the class, also while a picture is made.
        output = type(module).forward(module, *args, **options) if own is None else own(*args, **options)
        seen(_first(args, options), output)
        return output

    return replaced(module, "forward", forward)


def _first(args: tuple, options: dict[str, Any]) -> Any:
    return args[0] if args else next(iter(options.values()))
