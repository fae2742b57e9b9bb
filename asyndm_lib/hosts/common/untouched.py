"""The host's own functions behind those that other extensions put in their place."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from types import ModuleType


def untouched(module: ModuleType) -> ModuleType:
    """A copy of the host's ``module`` made from its file, in which nothing is replaced.

    The host does not know it. ``module`` is one that does nothing at its import but define things.
    """
    spec = spec_from_file_location(f"asyndm_untouched.{module.__name__}", module.__file__ or "")
    assert spec is not None
    assert spec.loader is not None
    copy = module_from_spec(spec)
    spec.loader.exec_module(copy)
    return copy


def is_replaced(module: ModuleType, name: str) -> bool:
    """Whether the host's function ``module.name`` is another than the module's file defines."""
    code = getattr(getattr(module, name), "__code__", None)
    return code is None or code.co_filename != module.__file__
