"""The ``bench`` command."""

from __future__ import annotations

import argparse
from dataclasses import replace
from itertools import product

from ..demo import outputs
from ..demo.device import device_of
from ..errors import AsynDMError
from .models import UNETS
from .report import HEAD, Case, line, machine, measured, save, usual_cases


def bench(options: argparse.Namespace) -> None:
    """Measure the cases that ``options`` name. A table line is printed as soon as a case is known,
    and the JSON file is written after each.

    Raises :class:`AsynDMError` for anything that is wrong with them.
    """
    device = device_of(options.device)
    outputs.check_file(options.out, "--out")
    large = [name for name in options.models or () if not name.startswith("embedded")]
    if large and device.type == "cpu":
        raise AsynDMError(
            f"--models {large[0]!r} is timed in half precision, on a GPU; "
            "on a CPU there are 'embedded' and 'embedded transformer'"
        )
    chosen = (options.models, options.samplers, options.batch, options.length, options.targets)
    first = Case("SD 1.5" if device.type == "cuda" else "embedded", "Euler", 1, 20)
    usual = ([first.model], [first.sampler], [first.batch], [first.steps], [first.targets])
    cases = usual_cases(device)
    if any(chosen):
        cases = [Case(*values) for values in product(*(own or one for own, one in zip(chosen, usual, strict=True)))]
    if options.by_level:
        flows = [case.model for case in cases if case.model not in UNETS]
        if options.models and flows:
            raise AsynDMError(f"--by-level is for the UNets: {flows[0]} has no normalisation by level")
        cases = [replace(case, by_level=True) for case in cases if case.model in UNETS]
    print(", ".join(f"{name} {value}" for name, value in machine(device).items()), flush=True)
    if options.by_level:
        print("plain: AsynDM without normalisation by level; else with it, as a multiple, or from → to", flush=True)
    print(HEAD, flush=True)
    rows = []
    for row in measured(cases, options.rounds, device):
        rows.append(row)
        print(line(row), flush=True)
        save(rows, device, options.out)  # what is measured is kept if the next case fails
    print(f"written to {options.out}")
