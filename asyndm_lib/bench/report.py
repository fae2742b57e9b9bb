"""The cases that are measured, and their table."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path

import torch

from ..hosts.standalone.ldm_attention import CrossAttention, scaled_dot_product
from ..models.parts.patching import replaced
from .loops import Loop
from .measure import Work, interleaved, launches, operations
from .models import LARGE, MODELS, Model


@dataclass(frozen=True)
class Case:
    """One case: a row of the table.

    ``by_level``: whether it is not AsynDM that is measured, but what normalisation by level adds to
    it in the steps that make the picture.
    """

    model: str
    sampler: str
    batch: int
    steps: int
    targets: int = 2
    by_level: bool = False


@dataclass(frozen=True)
class Figures:
    """What a case costs.

    ``plain``: the median seconds of the plain loop, or with ``by_level`` of AsynDM's without it.
    ``time``: our loop's as a multiple of them. ``ratios``: the quartiles of that multiple over the
    rounds. ``busy``: the multiple of the GPU's time at work, without its waits. ``peak``: MiB that
    the former takes above the weights. ``memory``: our loop's as a multiple of them. ``calls``: per
    step, of either, kernel launches on a GPU or PyTorch operations on a CPU. ``waits``: of the CPU
    for the GPU in a whole loop, of either.
    """

    case: Case
    plain: float
    time: float
    ratios: tuple[float, float]
    busy: float | None
    peak: float | None
    memory: float | None
    calls: tuple[float, float]
    waits: tuple[int, int]


def usual_cases(device: torch.device) -> list[Case]:
    """The usual cases: batch sizes of every model but the large ones, then samplers and lengths of
    two models, then many targets."""
    if device.type != "cuda":
        return [Case("embedded", "Euler", batch, 20) for batch in (1, 4)]
    base = Case("SD 1.5", "Euler", 1, 20)
    usual = [model for model in list(MODELS)[1:] if model not in LARGE]
    sizes = [replace(base, model=model, batch=batch) for model in usual for batch in (1, 4, 8)]
    ways = product(("SD 1.5", "SDXL"), ("Euler", "DPM++ 2M", "DPM++ SDE"), (20, 50))
    others = [Case(model, sampler, 1, steps) for model, sampler, steps in ways]
    # One by one by model, each of which is made once.
    cases = list(dict.fromkeys([*sizes, *others, replace(base, batch=8, steps=50), replace(base, targets=8)]))
    return sorted(cases, key=lambda case: list(MODELS).index(case.model))


def measured(cases: list[Case], rounds: int, device: torch.device) -> Iterator[Figures]:
    """The figures of each case. Both loops run ``rounds`` times, in turn."""
    name, model = None, None
    with replaced(CrossAttention, "forward", scaled_dot_product):
        for case in cases:
            if case.model != name:
                model = None  # gone before the next one comes
                name, model = case.model, MODELS[case.model](device)
            yield _figures(case, _ways(case, model, device), rounds, device)


def _ways(case: Case, model: Model, device: torch.device) -> tuple[Work, Work]:
    """The two loops that :class:`Figures` compares, ours last."""
    given = (model, case.sampler, case.batch, case.steps, device, case.targets)
    loop = Loop(*given, case.by_level)
    return (Loop(*given).asyndm if case.by_level else loop.plain), loop.asyndm


def _figures(case: Case, ways: tuple[Work, Work], rounds: int, device: torch.device) -> Figures:
    plain, ours = interleaved(ways, rounds, device)
    ratios = sorted(b / a for a, b in zip(plain.seconds, ours.seconds, strict=True))
    quartiles = torch.tensor(ratios, dtype=torch.float64).quantile(torch.tensor([0.25, 0.5, 0.75]).double()).tolist()
    busy = None
    if device.type == "cuda":
        given = [launches(way) for way in ways]
        counts, busy = [(one.started, one.waits) for one in given], given[1].busy / given[0].busy
    else:
        counted = [operations(way) for way in ways]
        counts = [(o.computing.total(), o.waits.total()) for o in counted]
    return Figures(
        case=case,
        plain=plain.median,
        time=quartiles[1],
        ratios=(quartiles[0], quartiles[2]),
        busy=busy,
        peak=None if plain.peak is None else plain.peak / 2**20,
        memory=None if plain.peak is None else ours.peak / plain.peak,
        calls=(counts[0][0] / case.steps, counts[1][0] / case.steps),
        waits=(counts[0][1], counts[1][1]),
    )


def machine(device: torch.device) -> dict[str, str]:
    """The device and the versions that the figures were measured on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {"device": name, "torch": torch.__version__, "python": platform.python_version()}


HEAD = (
    "| model | sampler | batch | steps | targets | plain, s | time | quartiles | GPU | memory | calls | waits |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)


def line(row: Figures) -> str:
    """The table line of one case."""
    case = row.case
    memory = "" if row.memory is None else f"{row.memory:.3f} of {row.peak:.0f} MiB"
    cells = [
        case.model,
        case.sampler,
        case.batch,
        case.steps,
        case.targets,
        f"{row.plain:.2f}",
        f"**{row.time:.3f}**",
        f"{row.ratios[0]:.3f}-{row.ratios[1]:.3f}",
        "" if row.busy is None else f"**{row.busy:.3f}**",
        memory,
        f"{row.calls[0]:.0f} → {row.calls[1]:.0f}",
        f"{row.waits[0]} → {row.waits[1]}",
    ]
    return "| " + " | ".join(map(str, cells)) + " |"


def save(rows: list[Figures], device: torch.device, path: Path) -> None:
    """Write everything measured to ``path``, as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    report = {**machine(device), "rows": [asdict(row) for row in rows]}
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
