"""The results as Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..errors import AsynDMError
from .methods import DM, PAPER, USERS
from .results import Result, across_ways, difference, pictures, share
from .statistics import Estimate

_CFG_7 = {way.name for way in USERS}
"""Ways whose names do not say their CFG scale."""


def markdown(results: Sequence[Result], about: dict[str, Any]) -> str:
    """All tables that ``results`` have rows for."""
    parts = [_sets(results), _ways(results), _variants(results)]
    return "\n\n".join([_about(about), *(part for part in parts if part)])


def insert(readme: Path, tables: str, name: str) -> None:
    """Put the tables into a file between the marks of that name. Raises as :func:`marked`."""
    before, after = marked(readme, name)
    begin, end = marks(name)
    readme.write_text(f"{before}{begin}\n{tables}\n{end}{after}", encoding="utf-8")


def marked(readme: Path, name: str) -> tuple[str, str]:
    """What stands in a file before and after the marks of that name.

    Raises :class:`AsynDMError` if the file cannot be read or has no such marks.
    """
    begin, end = marks(name)
    try:
        text = readme.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise AsynDMError(f"--into {readme} cannot be read: {error}") from error
    if begin not in text or end not in text:
        raise AsynDMError(f"{readme} has no lines {begin} and {end}")
    return text.split(begin)[0], text.split(end)[1]


def marks(name: str) -> tuple[str, str]:
    """The two lines that enclose the tables of a results file. ``name`` is its name without the
    suffix."""
    return f"<!-- {name}: begin -->", f"<!-- {name}: end -->"


def _about(about: dict[str, Any]) -> str:
    return "; ".join(f"{key}: {value}" for key, value in about.items()) + "."


def _sets(results: Sequence[Result]) -> str:
    """The paper's sampler on the report half: a row per method, a column per set."""
    here = [result for result in results if (result.way, result.half) == (PAPER.name, "report")]
    names = list(dict.fromkeys(result.set for result in here))
    rows = []
    for method, own in _by(here, "method"):
        cells = [[result for result in own if result.set == name] for name in names] + [own]
        rows.append([method, *(_cell(method, cell) for cell in cells), _moved(method, own), str(pictures(own))])
    head = [
        f"{PAPER.sampler}, {PAPER.steps} steps, eta {PAPER.eta:g}, CFG {PAPER.cfg:g}",
        *names,
        "all",
        "got right / wrong by it",
        "pictures",
    ]
    return lines(head, rows)


def _ways(results: Sequence[Result]) -> str:
    """All sets together on other samplers than the paper's: a row per method, a column per
    sampler."""
    here = [result for result in results if result.way != PAPER.name]
    names = list(dict.fromkeys(result.way for result in here))
    rows = []
    for method, own in _by(here, "method"):
        cells = [[result for result in own if result.way == name] for name in names]
        together = percent(share(own)) if method == DM.name else signed(across_ways(own))
        rows.append([method, *(_cell(method, cell) for cell in cells), together, str(pictures(own))])
    head = "report prompts, all sets" + ", CFG 7" * (_CFG_7.issuperset(names))
    return lines([head, *names, "all of these", "pictures"], rows)


def _variants(results: Sequence[Result]) -> str:
    """All sets together on the tuning half: a row per variant."""
    here = [result for result in results if result.half == "tuning"]
    rows = [[method, _cell(method, own), str(pictures(own))] for method, own in _by(here, "method")]
    return lines([f"tuning prompts, {PAPER.name}", "all sets", "pictures"], rows)


def _by(results: Iterable[Result], name: str) -> list[tuple[str, list[Result]]]:
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(getattr(result, name), []).append(result)
    return list(groups.items())


def _cell(method: str, results: Sequence[Result]) -> str:
    if not results:
        return ""
    return percent(share(results)) if method == DM.name else signed(difference(results))


def _moved(method: str, results: Sequence[Result]) -> str:
    if method == DM.name:
        return ""
    return f"{sum(result.gained for result in results)} / {sum(result.lost for result in results)}"


def percent(estimate: Estimate) -> str:
    return f"{100 * estimate.mean:.1f} %"


def signed(estimate: Estimate) -> str:
    return f"{100 * estimate.mean:+.1f} ± {100 * estimate.half:.1f}"


def signed_value(estimate: Estimate) -> str:
    """The text of a difference that is not a share."""
    return f"{estimate.mean:+.4f} ± {estimate.half:.4f}"


def lines(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; "" without rows."""
    if not rows:
        return ""
    every = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in every)
