"""The work of an evaluation, in rounds: pictures are made and scored. What is done is on file and
never done again."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from . import counter as counting
from .counter import CounterNetwork
from .engine import Batches, Noise
from .methods import Method, Way
from .prompt_sets import PromptSet
from .prompts import Prompt, Shown

QUIET = 30
"""How many seconds pass at least between two lines of progress in a file."""

SIDE = 256
"""The edge of a picture in pixels, the embedded model's."""


@dataclass(frozen=True)
class Round:
    """One part of the work: ``methods`` on the samplers of ``ways``, on one half of every set.

    The seeds go from ``first`` to before ``last``.
    """

    ways: Sequence[Way]
    methods: Sequence[Method]
    half: str
    first: int
    last: int


@dataclass(frozen=True)
class Job:
    """One picture to make. ``number`` is the place of its prompt in its half of the set."""

    set: str
    half: str
    number: int
    seed: int
    prompt: Prompt

    @property
    def noise(self) -> int:
        """The seed of its random numbers. No two pictures of a method share one."""
        place = sum(ord(letter) << (5 * at) for at, letter in enumerate(self.set)) % 1000
        return (place * 2 + (self.half == "report")) * 1_000_000 + self.number * 1000 + self.seed


class Record:
    """A file of what every picture of every method showed.

    It has one line of JSON per method, sampler, prompt and run of seeds. ``machines`` are those
    that made the pictures.
    """

    def __init__(self, path: Path):
        self._path = path
        self._shown: dict[tuple, dict[int, Shown]] = {}
        self.machines: set[str] = set()
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        for line in text.splitlines():
            try:
                self._take(json.loads(line))
            except (ValueError, KeyError):
                continue  # a line that a stop cut short
        if text and not text.endswith("\n"):
            with path.open("a", encoding="utf-8") as file:
                file.write("\n")

    def _take(self, entry: dict) -> None:
        key = entry["way"], entry["method"], entry["set"], entry["half"], entry["prompt"]
        self.machines.add(entry["on"])
        seeds = self._shown.setdefault(key, {})
        for seed, (exact, right, extra) in zip(entry["seeds"], entry["shown"], strict=True):
            seeds[seed] = Shown(bool(exact), right, extra)

    def shown(self, way: str, method: str, set_name: str, half: str, number: int) -> dict[int, Shown]:
        """What one prompt's pictures showed, by seed, as far as is known."""
        return self._shown.get((way, method, set_name, half, number), {})

    def has(self, way: Way, method: Method, job: Job) -> bool:
        return job.seed in self.shown(way.name, method.name, job.set, job.half, job.number)

    def add(self, way: Way, method: Method, jobs: Sequence[Job], shown: Sequence[Shown], on: str) -> None:
        """Record what some jobs' pictures showed, made on the machine ``on``, and write it to the
        file."""
        entries: dict[tuple, dict] = {}
        for job, one in zip(jobs, shown, strict=True):
            place = {"set": job.set, "half": job.half, "prompt": job.number}
            entry = entries.setdefault(
                tuple(place.values()),
                {"way": way.name, "method": method.name, **place, "on": on, "seeds": [], "shown": []},
            )
            entry["seeds"].append(job.seed)
            entry["shown"].append([int(one.exact), one.right, one.extra])
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(entry) + "\n" for entry in entries.values())
        for entry in entries.values():
            self._take(entry)


def jobs(sets: Sequence[PromptSet], half: str, seeds: Iterable[int]) -> list[Job]:
    """The pictures of a round. The sets' prompts take turns, so that any part of the list holds all
    sets alike."""
    seeds = list(seeds)
    prompts = [[(one.name, n, prompt) for n, prompt in enumerate(getattr(one, half))] for one in sets]
    return [
        Job(name, half, number, seed, prompt)
        for row in zip(*prompts, strict=True)
        for name, number, prompt in row
        for seed in seeds
    ]


def run(
    rounds: Sequence[Round],
    sets: Sequence[PromptSet],
    batches: Batches,
    counter: CounterNetwork,
    record: Record,
    batch: int,
    enough: Callable[[], bool] = lambda: False,
) -> None:
    """Make what ``record`` lacks, ``batch`` pictures at a time, until all is done or
    ``enough()``."""
    work = [
        (part, way, method)
        for round_ in rounds
        for part in _parts(round_, sets, batch)
        for way in round_.ways
        for method in round_.methods
    ]
    machine = _machine(batches.device)
    total = sum(len(part) for part, _, _ in work)
    noise: tuple[tuple, Noise] | None = None
    with tqdm(total=total, unit="picture", smoothing=0.05, disable=None) as bar:
        done, said = 0, -math.inf
        steps = [] if bar.disable else [lambda seen: bar.set_postfix_str(f"step {seen.i + 1} of {seen.total}")]
        for part, way, method in work:
            todo = [job for job in part if not record.has(way, method, job)]
            bar.update(len(part) - len(todo))
            done += len(part)
            if not todo:
                continue
            if enough():
                return
            bar.set_description(f"{way.name}: {method.name}"[:48])
            key = tuple(job.noise for job in todo)
            if noise is None or noise[0] != key:
                noise = key, batches.noise(key, SIDE, SIDE)
            latents = batches.make([job.prompt for job in todo], noise[1], way, method, steps)
            found = (things for pictures in batches.pictures(latents) for things in counting.find(counter, pictures))
            shown = [job.prompt.shown(things) for job, things in zip(todo, found, strict=True)]
            record.add(way, method, todo, shown, machine)
            bar.update(len(todo))
            if bar.disable and time.monotonic() > said + QUIET:  # no terminal: a line now and then
                said = time.monotonic()
                print(f"{done} of {total} pictures", file=sys.stderr, flush=True)


def _machine(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "a CPU"


def _parts(round_: Round, sets: Sequence[PromptSet], batch: int) -> Iterator[list[Job]]:
    every = jobs(sets, round_.half, range(round_.first, round_.last))
    for start in range(0, len(every), batch):
        yield every[start : start + batch]
