"""What other extensions count in the functions that they hang into the host."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import compress
from typing import Any, NamedTuple

from modules import script_callbacks
from torch import Tensor, nn

from ...models.parts.patching import AndThen

OURS = __name__.partition(".")[0]
CALLBACKS = ("callbacks_cfg_denoiser", "callbacks_cfg_denoised", "callbacks_cfg_after_cfg")


def functions_of(model: nn.Module, options: Any = None) -> list[Any]:
    """The functions that others have hung into the host: hooks and own ``forward`` of ``model``'s
    modules, callbacks of the CFG denoiser, and whatever is callable in ``options``, a mapping or
    list of such.
    """
    found = list(_callables(options))
    for module in model.modules():
        own = module.__dict__.get("forward")
        found += [*module._forward_pre_hooks.values(), *module._forward_hooks.values(), *([own] if own else [])]
    for name in CALLBACKS:
        found += [entry.callback for entry in script_callbacks.callback_map[name]]
    return found


class Counts:
    """The whole numbers that ``functions`` keep, from now on.

    A function keeps a number in a variable around it, in its module, in an object that it is bound
    to, holds or names there, in that object's class, or in a module or class that it names.
    """

    def __init__(self, functions: Iterable[Any]):
        found = [(place, name, place.read(name)) for place in _places(functions) for name in place.names]
        self._first = [(place, name, number) for place, name, number in found if type(number) is int]
        self._last: list[int] | None = None

    def look(self) -> None:
        """The denoiser has been called: what has not risen since the call before is no count. What
        the first call alone changes, as a size, is none either.
        """
        now = [place.read(name) for place, name, _ in self._first]
        if self._last is not None:
            risen = [type(number) is int and number > before for number, before in zip(now, self._last, strict=True)]
            self._first, now = list(compress(self._first, risen)), list(compress(now, risen))
        self._last = now

    def restore(self) -> None:
        """Put the counts back to what they were at first."""
        for place, name, number in self._first if self._last is not None else ():
            place.write(name, number)


def _callables(options: Any) -> Iterator[Any]:
    if isinstance(options, Mapping):
        options = list(options.values())
    if isinstance(options, (list, tuple)):
        for option in options:
            yield from _callables(option)
    elif callable(options):
        yield options


class _Place(NamedTuple):
    """Variables by their names."""

    names: list[str]
    read: Callable[[str], Any]
    write: Callable[[str, Any], None]


def _places(functions: Iterable[Any]) -> Iterator[_Place]:
    """Where ``functions``, and those that they hold, keep something."""
    left, seen = list(functions), set()
    while left:
        thing = left.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, functools.partial):
            left += [thing.func, *thing.args, *thing.keywords.values()]
        elif isinstance(thing, AndThen):  # behind which another extension's forward may be
            left.append(thing.own)
        elif isinstance(thing, types.MethodType):
            left += [thing.__func__, thing.__self__]
        elif isinstance(thing, types.FunctionType):
            cells = thing.__closure__ or ()
            left += [_contents(cell) for cell in cells]
            if not _ours(thing.__module__):
                yield from (_of_cell(cell) for cell in cells)
                own, names = thing.__globals__, list(thing.__code__.co_names)
                named = [own[name] for name in names if name in own]
                yield _Place(names, own.get, own.__setitem__)
                yield from (_of_object(other, names) for other in named if isinstance(other, (type, types.ModuleType)))
                left += [f for f in named if not isinstance(f, types.FunctionType) or f.__globals__ is own]
        elif isinstance(thing, (type, types.ModuleType, Tensor)) or _ours(type(thing).__module__):
            continue
        elif hasattr(thing, "__dict__"):
            yield from (_of_object(thing, list(vars(thing))), _of_object(type(thing), list(vars(type(thing)))))


def _of_cell(cell: types.CellType) -> _Place:
    return _Place([""], lambda name: _contents(cell), lambda name, value: setattr(cell, "cell_contents", value))


def _of_object(thing: Any, names: list[str]) -> _Place:
    return _Place(names, lambda name: vars(thing).get(name), functools.partial(setattr, thing))


def _contents(cell: types.CellType) -> Any:
    """The contents of ``cell``; None if it has none yet."""
    try:
        return cell.cell_contents
    except ValueError:
        return None


def _ours(module: str | None) -> bool:
    return (module or "").partition(".")[0] == OURS
