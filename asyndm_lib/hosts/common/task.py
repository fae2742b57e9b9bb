"""What the interface asks of one sampling call, and what it is told of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from ...errors import AsynDMError
from ...prompt.prompt_targets import PromptTargets
from ...run.outcome import Outcome
from ...run.step import Observer
from ...settings.settings import Settings

EarlierChoice = Mapping[int, Sequence[str]]
"""The words that a job's earlier calls chose as targets, by the picture's number in the job."""


class Listener(Protocol):
    """Who is told how a sampling call went."""

    def report(self, text: str) -> None:
        """Show the person one message."""

    def refused(self, reason: AsynDMError) -> None:
        """The call cannot run on sigma maps, and the host samples by itself."""

    def ran(self, outcome: Outcome) -> None:
        """What the call did to its pictures, to interrupted ones too."""

    def failed(self) -> None:
        """The call ended in an error, and with it the job: no picture is made."""


@dataclass(frozen=True)
class Task:
    """One sampling call that is to run on sigma maps.

    ``targets``: the target words in its prompts, None where none counts. ``chosen``: what the first
    pass chose. ``observers`` see every step; one that is a context manager is entered for the call.
    ``painted``: a mask by hand, see :func:`masks.hand.by_hand`.
    """

    settings: Settings
    targets: PromptTargets | None
    chosen: EarlierChoice
    listener: Listener
    observers: Sequence[Observer] = ()
    painted: Tensor | None = None
