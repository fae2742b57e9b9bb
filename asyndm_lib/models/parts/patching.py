"""An attribute of somebody else's object, exchanged for a while."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class replaced:  # noqa: N801 - it stands where a function of contextlib's would
    """``owner.name`` is ``value`` inside the ``with``; what this object or its class had comes
    back.

    What somebody else has put there meanwhile stays theirs. A class and not a generator, and past a
    module's own ``setattr``: a run exchanges a hundred of them.
    """

    __slots__ = ("_before", "_had", "_name", "_owner", "_value")

    def __init__(self, owner: Any, name: str, value: Any):
        self._owner, self._name, self._value = owner, name, value

    def __enter__(self) -> None:
        own = self._owner.__dict__
        self._had, self._before = self._name in own, own.get(self._name)
        self._set(self._value)

    def __exit__(self, *exception: object) -> None:
        if self._owner.__dict__.get(self._name) is not self._value:
            return
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


def watched(module: nn.Module, seen: Callable[[Tensor], None]) -> followed:
    """``seen(output)`` after every call of ``module`` in the ``with``; see :class:`followed`."""
    return followed(module, _OfOutput(seen))


class _OfOutput:
    """``seen(output)`` of an input and an output; no closure, as :class:`AndThen`."""

    __slots__ = ("_seen",)

    def __init__(self, seen: Callable[[Tensor], None]):
        self._seen = seen

    def __call__(self, input: Tensor, output: Tensor) -> None:
        self._seen(output)


class followed:  # noqa: N801 - it stands where a function of contextlib's would
    """``seen(input, output)`` after every call of ``module`` inside the ``with``.

    The input is the call's first argument. It is done by another ``forward``, which costs less than
    a forward hook: a module with any hook takes PyTorch's slower way of being called. A module that
    has a forward hook already, which may exchange the output, gets another, and so does one whose
    ``forward`` somebody exchanges meanwhile, from the next :meth:`look` on. A ``forward`` of ours
    that somebody keeps is what was there before it, and holds nothing else of ours.
    """

    def __init__(self, module: nn.Module, seen: Callable[[Tensor, Tensor], None]):
        self._module = module
        self._seen: Callable[[Tensor, Tensor], None] | None = seen
        self._handle: torch.utils.hooks.RemovableHandle | None = None

    def __enter__(self) -> followed:
        self._forward: Callable[..., Tensor] | None = AndThen(self._module, self._tell)
        self._exchange = replaced(self._module, "forward", self._forward)
        if self._module._forward_hooks:
            self._hook()
        else:
            self._exchange.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._exchange.__exit__()
        if self._handle is not None:
            self._handle.remove()
            # Extensions that take their own hooks away put another dict in this one's place.
            self._module._forward_hooks.pop(self._handle.id, None)
        self._seen = None
        # Our forward knows this object, and a run's that was there before: neither waits for the
        # garbage collector.
        self._forward = None
        del self._exchange

    def look(self) -> None:
        """See to it that the next call is seen."""
        if self._handle is None and self._module.__dict__.get("forward") is not self._forward:
            self._hook()

    def _hook(self) -> None:
        seen, self._seen = self._seen, None
        if seen is not None:
            self._handle = self._module.register_forward_hook(_Hook(seen), with_kwargs=True)

    def _tell(self, input: Tensor, output: Tensor) -> None:
        if self._seen is not None:
            self._seen(input, output)


def forward_of(module: nn.Module) -> Callable[..., Tensor]:
    """What ``module`` computes by now, for one who gives it another ``forward``."""
    own = module.__dict__.get("forward")
    if own is not None:
        return own
    # Looked up anew: the hosts exchange it in the class, also while a picture is made.
    return lambda *args, **options: type(module).forward(module, *args, **options)


class AndThen:
    """A module's ``forward`` that is ``own``, what it was, and then ``tell(input, output)``.

    It is no closure: from Python 3.11 on an error that somebody keeps keeps the functions that it
    went through with what they enclose, even where their frames are cleared.
    """

    __slots__ = ("_tell", "own")

    def __init__(self, module: nn.Module, tell: Callable[[Tensor, Tensor], None]):
        self.own, self._tell = forward_of(module), tell

    def __call__(self, *args: Any, **options: Any) -> Tensor:
        output = self.own(*args, **options)
        self._tell(_first(args, options), output)
        return output

    def __deepcopy__(self, memo: dict[int, Any]) -> AndThen:
        """Itself: a copy of a module shares its functions, too."""
        return self


class _Hook:
    """A forward hook that does ``tell(input, output)``; no closure, as :class:`AndThen`."""

    __slots__ = ("_tell",)

    def __init__(self, tell: Callable[[Tensor, Tensor], None]):
        self._tell = tell

    def __call__(self, module: nn.Module, args: tuple, options: dict[str, Any], output: Tensor) -> None:
        self._tell(_first(args, options), output)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Hook:
        """Itself: a copy of a module shares its functions, too."""
        return self


def _first(args: tuple, options: dict[str, Any]) -> Any:
    return args[0] if args else next(iter(options.values()))
