"""A device without double precision, as Apple's GPUs are, emulated on the CPU.

Its tensors say that they are on "meta". Inside :class:`SinglePrecision` they are computed by the
CPU. Whatever would make one in double precision raises the error that PyTorch raises there, and so
does what mixes it with tensors of the CPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

DEVICE = torch.device("meta")
DOUBLE = (torch.float64, torch.complex128)


class OnDevice(Tensor):
    """A tensor of the device. ``own`` holds its numbers."""

    own: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, own: Tensor) -> OnDevice:
        if own.dtype in DOUBLE:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype as MPS doesn't support float64")
        form = {"strides": own.stride(), "storage_offset": own.storage_offset(), "dtype": own.dtype}
        made = Tensor._make_wrapper_subclass(cls, own.shape, **form, device=DEVICE)
        made.own = own
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Sequence = (), kwargs: Mapping | None = None) -> Any:
        return _computed(func, args, kwargs or {})

    def __repr__(self) -> str:
        return f"OnDevice({self.own!r})"


class _Made(TorchFunctionMode):
    """What PyTorch makes of Python's numbers it does not ask a dispatch mode for."""

    def __torch_function__(self, func: Any, types: Any, args: Sequence = (), kwargs: Mapping | None = None) -> Any:
        kwargs = dict(kwargs or {})
        if func not in (torch.tensor, torch.as_tensor) or kwargs.get("device") is None:
            return func(*args, **kwargs)
        device = kwargs.pop("device")
        return func(*args, **kwargs).to(device)


class SinglePrecision(TorchDispatchMode):
    """Inside the ``with`` tensors can be made on the device."""

    def __init__(self) -> None:
        super().__init__()
        self._made = _Made()

    def __enter__(self) -> SinglePrecision:
        self._made.__enter__()
        return super().__enter__()

    def __exit__(self, *exception: object) -> None:
        super().__exit__(*exception)
        self._made.__exit__(*exception)

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence = (), kwargs: Mapping | None = None) -> Any:
        return _computed(func, args, kwargs or {})


def put(module: nn.Module) -> nn.Module:
    """``module`` with its parameters and buffers on the device."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                part._parameters[name] = nn.Parameter(OnDevice(parameter.detach()), requires_grad=False)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = OnDevice(buffer)
    return module


def _computed(func: Any, args: Sequence, kwargs: Mapping) -> Any:
    given: list[Tensor] = []
    args, kwargs = _mapped(args, given), _mapped(dict(kwargs), given)
    there = any(isinstance(tensor, OnDevice) for tensor in given)
    if "device" in kwargs and kwargs["device"] is not None:
        there = torch.device(kwargs["device"]).type == DEVICE.type
        kwargs["device"] = torch.device("cpu")
        if there and kwargs.get("dtype") not in DOUBLE and any(tensor.dtype in DOUBLE for tensor in given):
            raise TypeError("a tensor in double precision was sent to the device before it was rounded")
    elif func in (torch.ops.aten.copy_.default, torch.ops.aten.index_put_.default):
        pass
    elif there and any(not isinstance(tensor, OnDevice) and tensor.dim() > 0 for tensor in given):
        raise RuntimeError(f"Expected all tensors to be on the same device, in {func}")
    found = func(*_own(args), **_own(kwargs))
    return _put(found, given) if there else found


def _mapped(value: Any, given: list[Tensor]) -> Any:
    if isinstance(value, Tensor):
        given.append(value)
    elif isinstance(value, (list, tuple)):
        return type(value)(_mapped(one, given) for one in value)
    elif isinstance(value, dict):
        return {name: _mapped(one, given) for name, one in value.items()}
    return value


def _own(value: Any) -> Any:
    if isinstance(value, OnDevice):
        return value.own
    if isinstance(value, (list, tuple)):
        return type(value)(map(_own, value))
    if isinstance(value, dict):
        return {name: _own(one) for name, one in value.items()}
    return value


def _put(value: Any, given: Sequence[Tensor]) -> Any:
    if isinstance(value, Tensor):
        same = next((tensor for tensor in given if isinstance(tensor, OnDevice) and tensor.own is value), None)
        return OnDevice(value) if same is None else same
    if isinstance(value, (list, tuple)):
        return type(value)(_put(one, given) for one in value)
    return value
