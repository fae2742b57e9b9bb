"""The ``evaluate`` command."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ..demo import outputs
from ..demo.device import device_of
from ..errors import AsynDMError
from ..hosts.standalone.embedded import Request
from ..hosts.standalone.ldm_checkpoint import load
from ..settings.settings import Settings
from . import (
    contact_sheet,
    counter,
    gallery,
    geneval,
    manifest,
    plan,
    prompt_files,
    results,
    runner,
    scorers,
    subjects,
    table,
)
from .engine import Batches
from .methods import CONCAVE, DM, FRESH, INVERTED, LAGGED, Way
from .prompt_sets import PLAIN, PromptSet, sets
from .prompts import Prompt
from .spread import Gone
from .webui import WebUI

ON_GPU, ON_CPU = 512, 8
"""How many pictures are made at once."""

HALVES = ("tuning", "report")
"""The halves of a prompt set."""


def evaluate(options: argparse.Namespace) -> None:
    """Do what ``options`` of :mod:`asyndm_lib.cli` ask for.

    Raises :class:`AsynDMError` for anything that is wrong with them.
    """
    if options.table:
        _print_table(options.results, options.into)
    elif options.prompts is not None or options.geneval is not None or options.webui is not None:
        _foreign(options)
    else:
        _trained(options)


def _trained(options: argparse.Namespace) -> None:
    """Evaluate an embedded model, or one that was trained on from it, on its own prompt sets."""
    subject = subjects.EMBEDDED_MODELS[options.model]
    if options.scenery is not None:
        subject = subjects.in_sceneries(options.scenery)
    if options.two_levels is not None:
        subject = subjects.on_two_levels(options.two_levels)
    if options.deciding:
        if subject.rounds is plan.TRANSFORMER:
            raise AsynDMError("--deciding is for the UNets: a transformer has no normalisation by level")
        subject = replace(subject, rounds=plan.DECIDING_ROUNDS, results=f"deciding-{subject.results}")
    name = Path(f"{'small-' * options.small}{subject.results}")
    device = device_of(options.device)
    if options.sheet is not None:
        outputs.check_picture(options.sheet, "--sheet")
    outputs.check_folder(options.folder, "--folder")
    rounds = subject.small if options.small else subject.rounds
    prompts = sets(subject.kinds, plan.SMALL_PROMPTS) if options.small else sets(subject.kinds)
    former = "small.jsonl" if options.small else "record.jsonl"
    record = _record(options.folder / name.with_suffix(".jsonl"), former, subject, rounds, prompts)
    batches, network = Batches(load(subject.model, None, device)), counter.load(device, subject.counter)
    if options.small:
        print(
            f"{sum(len(one.report) for one in prompts)} pictures a method: "
            "they show that the evaluation works, and decide nothing",
            flush=True,
        )
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


def _record(
    path: Path, former: str, subject: subjects.Subject, rounds: Sequence[runner.Round], prompts: Sequence[PromptSet]
) -> runner.Record:
    """The record at ``path``, which is about the ``subject`` and these rounds and prompts.

    Raises :class:`AsynDMError` where it is about others, or where there is none but one under its
    ``former`` name, which did not tell of which model it is.
    """
    if not path.exists() and path.with_name(former).exists():
        raise AsynDMError(
            f"{path.with_name(former)} was begun by an earlier version: rename it to {path.name} "
            "if it is of this model and these prompts, to go on from it, or move it away"
        )
    every = {f"{one.name}, {half}": manifest.stated(getattr(one, half)) for one in prompts for half in HALVES}
    growing = {
        "prompts": every,
        "samplers": {way.name: manifest.stated(way) for round_ in rounds for way in round_.ways},
        "methods": {method.name: manifest.stated(method) for round_ in rounds for method in round_.methods},
    }
    question = {**manifest.model(subject.model), "counter": manifest.digest(subject.counter)}
    manifest.hold(path.with_name(f"{path.stem}.manifest.json"), question, growing, path.exists())
    return runner.Record(path)


def _print_table(path: Path, into: Path | None) -> None:
    tables = table.markdown(*results.load(path))
    if into is not None:
        table.insert(into, tables, path.stem)
    print(tables)


def _foreign(options: argparse.Namespace) -> None:
    """Evaluate another model in a WebUI or on this machine, or the embedded one in a WebUI."""
    device = device_of(options.device)
    outputs.check_folder(options.folder, "--folder")
    prompts = _prompts(options)
    way = Way(options.sampler, options.sampler, options.schedule, options.steps, options.cfg, options.eta)
    makers, model = _makers(options, way, device)
    known = _scorers(options, device)
    pictures = gallery.Gallery(options.folder, prompts, gallery.METHODS, range(options.seeds))
    pictures.hold({**model, "sampling": {**_of(way), "width": options.width, "height": options.height}})
    print(f"{len(prompts)} prompts, {options.seeds} seeds, pictures in {options.folder}", flush=True)
    try:
        skipped = pictures.fill(makers, way, _say)
    except Gone as error:
        raise AsynDMError(f"{error}; what is made is kept: start this command again to go on") from error
    if skipped:
        print(f"{len(skipped)} of {len(prompts)} prompts were skipped")
    if len(skipped) == len(prompts):
        raise AsynDMError(f"no prompt has pictures to compare; the last one: {skipped[max(skipped)]}")
    scores = pictures.scores(known, skipped, _say)
    if not scores:
        raise AsynDMError("nothing could score the pictures; they are kept")
    _print_lines(gallery.table(scores))
    if "GenEval" in scores:
        kinds = [scene.kind for n, scene in enumerate(prompts) if isinstance(scene, geneval.Scene) and n not in skipped]
        _print_lines(["", "GenEval by kind", *gallery.table(gallery.parts(scores["GenEval"], kinds))])


def _prompts(options: argparse.Namespace) -> Sequence[Prompt]:
    """The prompts of a person's file, those in GenEval's manner, or our own; of the latter two any
    first part holds all kinds alike."""
    if options.geneval is not None:
        return geneval.prompts(options.count or geneval.USUAL, options.geneval)
    if options.prompts is not None:
        return prompt_files.read(options.prompts)[: options.count]
    own = [prompt for row in zip(*(one.report for one in sets(PLAIN)), strict=True) for prompt in row]
    return own[: options.count]


def _scorers(options: argparse.Namespace, device: torch.device) -> dict[str, scorers.Scorer]:
    """The scorers that are asked for, or all, as far as they work here; what the others lack is
    printed.

    Raises :class:`AsynDMError` if there is none.
    """
    wanted = options.scorers or [name for name in scorers.NAMES if name != "GenEval" or options.geneval is not None]
    if "GenEval" in wanted and options.geneval is None:
        raise AsynDMError("GenEval judges the prompts of --geneval alone")
    known, missing = scorers.available(device, options.prompts is None and options.geneval is None, wanted)
    for name, why in missing.items():
        print(f"no {name}: {why}")
    if not known:
        ways = ", or ".join(f"for {name}: {scorers.GET[name]}" for name in missing)
        raise AsynDMError(f"nothing here can score pictures; install what is missing first, {ways}")
    return known


def _makers(
    options: argparse.Namespace, way: Way, device: torch.device
) -> tuple[Sequence[gallery.PictureMaker], dict[str, Any]]:
    """What makes the pictures, and what says which model it is.

    Raises :class:`AsynDMError` if nothing can make any.
    """
    width, height = options.width, options.height
    if options.webui is not None:
        webuis, model = _webuis([WebUI(url, width, height) for url in options.webui], way)
        print(f"model: {model.get('sd_model_checkpoint')}")
        return webuis, model
    checkpoint = options.checkpoint or subjects.EMBEDDED_MODELS[options.model].model
    batches = Batches(load(checkpoint, options.config, device))
    request = Request("a cat", "", (0,), way.sampler, way.schedule, way.steps, way.cfg, width, height, way.eta)
    batches.check(request)
    batches.check_run(request, Settings(targets="cat"))  # lagged masks need the most steps
    return [gallery.LocalModel(batches, width, height)], manifest.model(checkpoint, options.config)


def _webuis(webuis: Sequence[WebUI], way: Way) -> tuple[Sequence[WebUI], dict[str, Any]]:
    """Those that answer, and what decides their pictures. The others are named.

    Raises :class:`AsynDMError` if none answers, or if they would make different pictures.
    """
    there: list[tuple[WebUI, dict[str, Any]]] = []
    for webui in webuis:
        try:
            there.append((webui, webui.check(way)))
        except Gone as error:
            if len(webuis) == 1:
                raise
            print(f"without it: {error}", flush=True)
    if not there:
        raise AsynDMError(f"none of the {len(webuis)} WebUIs answers")
    (first, model), *others = there
    for other, own in others:
        different = "; ".join(manifest.differences(model, own))
        if different:
            raise AsynDMError(
                f"the WebUIs would make different pictures ({different:.200}; there: {first.url}, here: {other.url})"
            )
    return [webui for webui, _ in there], model


def _of(way: Way) -> dict[str, Any]:
    """A sampler's settings, without the name that we give them."""
    return {name: value for name, value in asdict(way).items() if name != "name"}


def _say(line: str) -> None:
    """Print a line beside a progress bar."""
    tqdm.write(line)


def _print_lines(lines: Sequence[str]) -> None:
    for line in lines:
        print(line)
