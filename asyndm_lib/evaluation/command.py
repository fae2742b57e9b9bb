"""The ``evaluate`` command."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..demo.device import device_of
from ..errors import AsynDMError
from ..hosts.standalone.embedded import Request
from ..hosts.standalone.ldm_checkpoint import load
from . import contact_sheet, counter, gallery, plan, prompt_files, results, runner, scorers, subjects, table
from .engine import Batches
from .methods import CONCAVE, DM, FRESH, INVERTED, LAGGED, Way
from .prompt_sets import PLAIN, sets
from .webui import WebUI

ON_GPU, ON_CPU = 512, 8
"""How many pictures are made at once."""


def evaluate(options: argparse.Namespace) -> None:
    """Do what ``options`` of :mod:`asyndm_lib.cli` ask for.

    Raises :class:`AsynDMError` for anything that is wrong with them.
    """
    if options.table:
        _print_table(options.results, options.into)
    elif options.prompts is not None or options.webui is not None:
        _foreign(options)
    else:
        _trained(options)


def _trained(options: argparse.Namespace) -> None:
    """Evaluate the embedded model, or the model of sceneries, on its own prompt sets."""
    subject = subjects.EMBEDDED_MODELS[options.model]
    if options.scenery is not None:
        subject = subjects.in_sceneries(options.scenery)
    if options.deciding:
        if subject.rounds is plan.TRANSFORMER:
            raise AsynDMError("--deciding is for the UNets: a transformer has no normalisation by level")
        subject = replace(subject, rounds=plan.DECIDING_ROUNDS, results=f"deciding-{subject.results}")
    name = Path(f"{'small-' * options.small}{subject.results}")
    record = _record(options.folder / name.with_suffix(".jsonl"), "small.jsonl" if options.small else "record.jsonl")
    device = device_of(options.device)
    rounds = subject.small if options.small else subject.rounds
    prompts = sets(subject.kinds, plan.SMALL_PROMPTS) if options.small else sets(subject.kinds)
    batches, network = Batches(load(subject.model, None, device)), counter.load(device, subject.counter)
    options.folder.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 60 * options.minutes
    batch = options.batch or (ON_GPU if device.type == "cuda" else ON_CPU)
    runner.run(rounds, prompts, batches, network, record, batch, lambda: time.monotonic() > end)
    found = results.collect(record, rounds, prompts)
    about = subject.about(record.machines)
    path = options.folder / name
    results.save(path, found, about)
    print(table.markdown(found, about))
    print(path)
    if options.sheet is not None:
        way = rounds[0].ways[0]
        contact_sheet.draw(prompts, (DM, CONCAVE, LAGGED, FRESH, INVERTED), way, 2, batches, network).save(
            options.sheet
        )
        print(options.sheet)


def _record(path: Path, former: str) -> runner.Record:
    """The record at ``path``.

    Raises :class:`AsynDMError` where there is none but one under its ``former`` name, which did not
    tell of which model it is.
    """
    if not path.exists() and path.with_name(former).exists():
        raise AsynDMError(
            f"{path.with_name(former)} was begun by an earlier version: rename it to {path.name} "
            "if it is of this model and these prompts, to go on from it, or move it away"
        )
    return runner.Record(path)


def _print_table(path: Path, into: Path | None) -> None:
    tables = table.markdown(*results.load(path))
    if into is not None:
        table.insert(into, tables, path.stem)
    print(tables)


def _foreign(options: argparse.Namespace) -> None:
    """Evaluate another model in a WebUI or on this machine, or the embedded one in a WebUI."""
    device = device_of(options.device)
    own = options.prompts is None
    prompts = (
        [prompt for row in zip(*(one.report for one in sets(PLAIN)), strict=True) for prompt in row]
        if own
        else (prompt_files.read(options.prompts))
    )
    prompts = prompts[: options.count] if options.count else prompts
    way = Way(options.sampler, options.sampler, options.schedule, options.steps, options.cfg, options.eta)
    width, height = options.width, options.height
    maker: gallery.PictureMaker
    if options.webui is not None:
        maker = WebUI(options.webui, width, height)
        print(f"model: {maker.check()}")
    else:
        checkpoint = options.checkpoint or subjects.EMBEDDED_MODELS[options.model].model
        batches = Batches(load(checkpoint, options.config, device))
        batches.check(Request("", "", (), way.sampler, way.schedule, way.steps, way.cfg, width, height, way.eta))
        maker = gallery.LocalModel(batches, width, height)
    known, missing = scorers.available(device, exact=own)
    for name, why in missing.items():
        print(f"no {name}: {why}")
    pictures = gallery.Gallery(options.folder, prompts, gallery.METHODS, range(options.seeds))
    pictures.fill(maker, way)
    print(f"{len(prompts)} prompts, {options.seeds} seeds, pictures in {options.folder}")
    if not known:
        raise AsynDMError(
            "nothing can score them: install ImageReward, or transformers with the weights of "
            f"{scorers.CLIP}, and start this command again; the pictures are kept"
        )
    _print_lines(gallery.table(pictures.scores(known)))


def _print_lines(lines: Sequence[str]) -> None:
    for line in lines:
        print(line)
