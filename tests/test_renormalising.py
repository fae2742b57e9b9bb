"""The formula of normalisation by level, and its fused form."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from asyndm_lib.models.parts import renormalising
from asyndm_lib.models.parts.renormalising import KERNEL, plain, renormalised

TYPES = [torch.float32, torch.float16, torch.bfloat16]
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")),
]


class OnGpu(Tensor):
    """It says that it is on a GPU."""

    is_cuda = True


def given(device: str, dtype: torch.dtype) -> list[Tensor]:
    """``y``, weight, bias, shift and gain, in the shapes of a layer."""
    torch.manual_seed(0)
    shapes = (2, 4, 3, 5, 7), (4, 3, 1, 1), (4, 3, 1, 1), (2, 4, 1, 5, 7), (2, 4, 1, 5, 7)
    return [torch.randn(shape).to(device, dtype) for shape in shapes]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("device", DEVICES)
def test_it_scales_about_the_bias_and_shifts(device, dtype):
    y, weight, bias, shift, gain = (tensor.double() for tensor in given(device, dtype))
    expected = bias + (y - bias) * (1 + gain) - weight * shift
    out = renormalised(*given(device, dtype))
    assert out.dtype == dtype
    ulp = torch.finfo(dtype).eps * expected.abs().max().item()
    torch.testing.assert_close(out.double(), expected, rtol=0, atol=4 * ulp)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_without_shift_and_gain_it_is_the_layers_own_to_the_bit(device, dtype, memory):
    y, weight, bias, shift, gain = given(device, dtype)
    y = 3e4 * y.clamp(-2, 2).flatten(1, 2).contiguous(memory_format=memory).unflatten(1, (4, 3))
    bias = 3e4 * bias.clamp(-2, 2)  # in half precision y - bias would be beyond its numbers
    out = renormalised(y, 300 * weight, bias, torch.zeros_like(shift), torch.zeros_like(gain))
    assert torch.equal(out, y)
    assert out.stride() == y.stride()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("dtype", TYPES)
def test_a_gpu_does_it_in_one_kernel(dtype):
    from torch.profiler import ProfilerActivity, profile

    tensors = given("cuda", dtype)
    renormalised(*tensors)
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        renormalised(*tensors)
        torch.cuda.synchronize()
    events = seen.profiler.kineto_results.events()
    assert sum(event.device_type() == torch.profiler.DeviceType.CUDA for event in events) == 1


def test_where_pytorch_has_no_compiler_for_the_device_the_plain_form_serves(monkeypatch):
    class Jiterator:
        @staticmethod
        def _create_jit_fn(code: str):
            assert code == KERNEL

            def kernel(*tensors: Tensor) -> Tensor:
                raise RuntimeError("nvrtc: error: failed to open libnvrtc-builtins.so")

            return kernel

    monkeypatch.setattr(torch.cuda, "jiterator", Jiterator)
    renormalising._fused.cache_clear()
    assert renormalising._fused(torch.device("cpu"), torch.float32) is None
    renormalising._fused.cache_clear()
    monkeypatch.setattr(renormalising, "_fused", lambda device, dtype: None)
    y, *others = given("cpu", torch.float32)
    assert torch.equal(renormalised(y.as_subclass(OnGpu), *others).as_subclass(Tensor), plain(y, *others))


@pytest.mark.parametrize("on_gpu", [False, True])
def test_an_extension_that_guides_by_gradients_gets_them(on_gpu, monkeypatch):
    def fused(device: torch.device, dtype: torch.dtype):
        raise AssertionError("a kernel without gradients")

    monkeypatch.setattr(renormalising, "_fused", fused)
    y, weight, bias, shift, gain = given("cpu", torch.float64)
    if on_gpu:
        y = y.as_subclass(OnGpu)
    renormalised(y.requires_grad_(), weight, bias, shift, gain).sum().backward()
    torch.testing.assert_close(y.grad.as_subclass(Tensor), (1 + gain).expand_as(y))
