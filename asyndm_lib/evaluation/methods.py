"""What is compared: methods, and the samplers' settings that they are compared at."""

from __future__ import annotations

from dataclasses import dataclass

from ..hosts.embedded import SYNCHRONOUS
from ..settings import Settings
from .regions import Control

PEERS = ("Z-Sampling", "SEG", "S-CFG", "CFG++")


@dataclass(frozen=True)
class Way:
    """A sampler and its settings. ``eta``: None for the sampler's own."""

    name: str
    sampler: str
    schedule: str
    steps: int
    cfg: float
    eta: float | None = None


@dataclass(frozen=True)
class Method:
    """One way to go down: AsynDM's ``settings`` (the targets are the prompt's), a ``control`` of its masks, a ``peer``."""

    name: str
    settings: Settings
    control: Control | None = None
    peer: str | None = None


PAPER = Way("DDIM 50", "DDIM", "automatic", 50, 5.0, 1.0)
"""The paper's setting."""

DM = Method("DM", SYNCHRONOUS)
"""The ordinary picture, to which all others are compared."""
