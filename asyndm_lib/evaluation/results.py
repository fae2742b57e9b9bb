"""The results file: what every method's pictures showed, beside the ordinary pictures of the same
prompts and seeds."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from ..errors import AsynDMError
from .methods import DM
from .prompt_sets import PromptSet
from .runner import Record, Round
from .statistics import Estimate, mean, paired

_COUNTS = ("exact", "ordinary", "pairs")

FILE = Path(__file__).parent / "results.json"
"""The committed results file."""


@dataclass(frozen=True)
class Result:
    """One method on one set, by prompt, over the seeds that the ordinary pictures have too.

    ``pairs``: how many such pairs of pictures each prompt has. ``exact`` and ``ordinary``: how many
    were exact, with the method and without. ``right`` and ``extra``: how many shown things were
    wanted and not wanted, in all pictures. ``of``: how many things were wanted. ``gained`` and
    ``lost``: how many pictures only the method got right, and only the ordinary way.
    """

    way: str
    half: str
    method: str
    set: str
    pairs: list[int]
    exact: list[int]
    ordinary: list[int]
    right: int
    extra: int
    of: int
    gained: int
    lost: int


def collect(record: Record, rounds: Iterable[Round], sets: Sequence[PromptSet]) -> list[Result]:
    """The results of every method of ``rounds`` that has pictures, once per sampler, half and
    set."""
    places = dict.fromkeys(
        (way.name, round_.half, method.name) for round_ in rounds for way in round_.ways for method in round_.methods
    )
    every = (_result(record, *place, one) for place in places for one in sets)
    return [result for result in every if result.pairs]


def _result(record: Record, way: str, half: str, method: str, of: PromptSet) -> Result:
    result = Result(way, half, method, of.name, [], [], [], 0, 0, 0, 0, 0)
    totals = dict.fromkeys(("right", "extra", "of", "gained", "lost"), 0)
    for number, prompt in enumerate(getattr(of, half)):
        own = record.shown(way, method, of.name, half, number)
        ordinary = record.shown(way, DM.name, of.name, half, number)
        pairs = [(own[seed], ordinary[seed]) for seed in sorted(own.keys() & ordinary.keys())]
        if not pairs:
            continue
        result.pairs.append(len(pairs))
        result.exact.append(sum(one.exact for one, _ in pairs))
        result.ordinary.append(sum(other.exact for _, other in pairs))
        totals["right"] += sum(one.right for one, _ in pairs)
        totals["extra"] += sum(one.extra for one, _ in pairs)
        totals["of"] += len(pairs) * sum(count for _, count in prompt.things)
        totals["gained"] += sum(one.exact and not other.exact for one, other in pairs)
        totals["lost"] += sum(other.exact and not one.exact for one, other in pairs)
    return Result(**{**asdict(result), **totals})


def save(path: Path, results: Sequence[Result], about: dict[str, Any]) -> None:
    """Write the results. ``about`` says what they were made with, for the readers of the table."""
    lines = ",\n  ".join(json.dumps(asdict(result)) for result in results)
    path.write_text(f'{{"about": {json.dumps(about)},\n "results": [\n  {lines}\n]}}\n', encoding="utf-8")


def load(path: Path = FILE) -> tuple[list[Result], dict[str, Any]]:
    """The results and ``about`` that :func:`save` wrote. Raises :class:`AsynDMError` for any other
    file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return [Result(**entry) for entry in content["results"]], content["about"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise AsynDMError(f"{path} is not a results file: {error}") from error


def share(results: Sequence[Result]) -> Estimate:
    """The share of exact pictures. All prompts count alike."""
    return mean([exact / pairs for result in results for exact, pairs in zip(result.exact, result.pairs, strict=True)])


def difference(results: Sequence[Result]) -> Estimate:
    """How much larger the share of exact pictures is than the ordinary ones', paired by prompt and
    seed."""
    joined = [[value for result in results for value in getattr(result, name)] for name in _COUNTS]
    return paired(*joined)


def across_ways(results: Sequence[Result]) -> Estimate:
    """:func:`difference` with a prompt's pictures on several samplers taken together, since they
    are not independent."""
    together = []
    for name in dict.fromkeys(result.set for result in results):
        own = [result for result in results if result.set == name]
        # A stop leaves the last prompts without pictures: a place in a list is a prompt's number.
        rows = [zip_longest(*(getattr(result, of) for result in own), fillvalue=0) for of in _COUNTS]
        together += zip(*(map(sum, row) for row in rows), strict=True)
    return paired(*map(list, zip(*together, strict=True)))


def pictures(results: Sequence[Result]) -> int:
    return sum(sum(result.pairs) for result in results)
