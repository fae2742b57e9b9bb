"""Time, memory and operation counts of a piece of work."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

Begin = Callable[[], None]
Work = Callable[[Begin], object]
"""Work to measure. It calls what it is given where that begins which is measured."""

_FREE = frozenset(
    (
        *("_reshape_alias", "_unsafe_view", "alias", "as_strided", "chunk", "detach", "expand", "permute", "reshape"),
        *("select", "slice", "split", "split_with_sizes", "squeeze", "t", "transpose", "unbind", "unflatten"),
        *("unsafe_split", "unsqueeze", "view", "lift", "lift_fresh", "scalar_tensor"),
        *("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "is_same_size", "promote_types"),
    )
)
"""Operations that compute nothing: views, empty memory, questions."""

_WAITS = frozenset(["_local_scalar_dense", "is_nonzero", "nonzero", "unique_dim", "_unique2", "equal", "masked_select"])
"""Operations whose result the CPU waits for."""


class Operations(TorchDispatchMode):
    """Counts PyTorch's operations inside the ``with``.

    ``computing`` counts those that compute, by name; each is at least one launch on a GPU.
    ``waits`` counts those for which the CPU would wait for a GPU.
    """

    def __init__(self) -> None:
        super().__init__()
        self.computing: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        name = func.__name__.split(".")[0]
        if name in _WAITS:
            self.waits[name] += 1
        elif name not in _FREE:
            self.computing[name] += 1
        return func(*args, **(kwargs or {}))


def operations(work: Work) -> Operations:
    """The counted operations of one call of ``work``."""
    counted = Operations()
    with ExitStack() as stack:

        def begin() -> None:
            stack.enter_context(counted)

        work(begin)
    return counted


@dataclass(frozen=True)
class Launches:
    """What a GPU is given in one call.

    ``started``: kernels. ``waits``: how often the CPU waits for the GPU. ``busy``: seconds in which
    the GPU works.
    """

    started: int
    waits: int
    busy: float


def launches(work: Work) -> Launches:
    """The launches of one call of ``work``. A GPU is needed."""
    from torch.profiler import ProfilerActivity, profile

    profiled = profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA])

    def begin() -> None:
        torch.cuda.synchronize()
        profiled.start()

    work(begin)
    profiled.stop()
    # The events as they come: the profiler's own tables of them take minutes.
    events = profiled.profiler.kineto_results.events()
    names = [event.name() for event in events]
    started = sum(name.startswith(("cudaLaunchKernel", "cuLaunchKernel")) for name in names)
    on_gpu = [event for event in events if event.device_type() == torch.profiler.DeviceType.CUDA]
    # PyTorch tells it in microseconds up to 2.3.
    busy = sum(e.duration_ns() / 1e3 if hasattr(e, "duration_ns") else e.duration_us() for e in on_gpu)
    # The profiler waits for the device once, at its end.
    return Launches(started, sum(name.endswith("Synchronize") for name in names) - 1, busy / 1e6)


@dataclass(frozen=True)
class Cost:
    """What a piece of work costs.

    ``seconds``: of each round. ``peak``: the most bytes above what was held before; None on a CPU.
    """

    seconds: list[float]
    peak: int | None

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def interleaved(works: Sequence[Work], rounds: int, device: torch.device) -> list[Cost]:
    """The cost of each of ``works``, which run in turn so that outside load meets all alike.

    Each runs once to warm up, and then ``rounds`` times.
    """
    for work in works:
        work(lambda: None)
    measured: list[list[tuple[float, int | None]]] = [[] for _ in works]
    for number in range(rounds):
        # Whoever goes first has it a little cooler.
        for at in range(len(works)) if number % 2 == 0 else reversed(range(len(works))):
            measured[at].append(_once(works[at], device))
    return [Cost([seconds for seconds, _ in runs], _most(peak for _, peak in runs)) for runs in measured]


def _most(peaks: Any) -> int | None:
    known = [peak for peak in peaks if peak is not None]
    return max(known, default=None)


def _once(work: Work, device: torch.device) -> tuple[float, int | None]:
    on_gpu, start, before = device.type == "cuda", 0.0, 0

    def begin() -> None:
        nonlocal start, before
        if on_gpu:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
        start = time.perf_counter()

    work(begin)
    if not on_gpu:
        return time.perf_counter() - start, None
    torch.cuda.synchronize()
    return time.perf_counter() - start, torch.cuda.max_memory_allocated() - before
