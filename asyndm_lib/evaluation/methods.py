"""What is compared: methods, and the samplers with settings that they are compared on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ..hosts.standalone.embedded import SYNCHRONOUS
from ..settings.settings import BY_LEVEL, Settings
from .regions import Control

PEERS = ("Z-Sampling", "SEG", "S-CFG", "CFG++", "Attend-and-Excite")


@dataclass(frozen=True)
class Way:
    """A sampler and its settings. ``eta`` is None for the sampler's own."""

    name: str
    sampler: str
    schedule: str
    steps: int
    cfg: float
    eta: float | None = None


@dataclass(frozen=True)
class Method:
    """One way to make pictures.

    ``settings`` are AsynDM's; the targets come from the prompt. ``control`` changes its masks.
    ``peer`` names one of :data:`PEERS`. ``text_at_mean``: whether a transformer's prompt is at the
    mean level of its picture, and not at the host's. ``cfg`` and ``steps`` are factors of the
    sampler's.
    """

    name: str
    settings: Settings
    control: Control | None = None
    peer: str | None = None
    text_at_mean: bool = False
    cfg: float = 1.0
    steps: float = 1.0

    def way(self, way: Way) -> Way:
        """The sampler's settings that the method takes."""
        return replace(way, cfg=way.cfg * self.cfg, steps=round(way.steps * self.steps))


PAPER = Way("DDIM 50", "DDIM", "automatic", 50, 5.0, 1.0)
"""The paper's sampler and settings."""

DM = Method("DM", SYNCHRONOUS)
"""The ordinary picture, which all others are compared with."""

USERS = (
    Way("DPM++ 2M Karras 20", "DPM++ 2M", "karras", 20, 7.0),
    Way("DPM++ 2M Karras 30", "DPM++ 2M", "karras", 30, 7.0),
    Way("Euler a 20", "Euler a", "automatic", 20, 7.0),
    Way("Euler a 30", "Euler a", "automatic", 30, 7.0),
)
"""What users of the WebUIs commonly set."""


FLOW_USERS = tuple(
    Way(f"Euler {steps}, CFG {cfg:g}", "Euler", "automatic", steps, cfg) for cfg in (4.0, 7.0) for steps in (20, 28)
)
"""What users commonly set for Stable Diffusion 3."""


def asyndm(concavity: float, timing: str = "lagged", **other: Any) -> Method:
    """AsynDM. Its name says what differs from the paper's quadratic curve and threshold of 1."""
    settings = Settings(concavity=concavity, mask_timing=timing, **other)
    said = [timing, f"k = {concavity:g}"]
    said += [value if isinstance(value, str) else f"{name} {value:g}" for name, value in other.items()]
    return Method("AsynDM " + ", ".join(said), settings)


def controlled(name: str, of: Method, **control: Any) -> Method:
    """The method ``of`` with other masks."""
    return Method(name, of.settings, Control(**control))


CONCAVE = Method("DM_concave, k = 0.7", Settings(whole_picture=True, concavity=0.7))
FRESH, LAGGED = asyndm(0.7, "fresh"), asyndm(0.7)
INVERTED = controlled("mask inverted, fresh, k = 0.7", FRESH, mask="inverted")
RANDOM = controlled("random mask, fresh, k = 0.7", FRESH, mask="random")

TEXT_AT_MEAN = Method("AsynDM fresh, k = 0.7, text at the mean level", FRESH.settings, text_at_mean=True)


def by_level(method: Method) -> Method:
    """``method`` with normalisation by level."""
    settings = replace(method.settings, normalisation=BY_LEVEL)
    return replace(method, name=f"{method.name}, by level", settings=settings)


MORE_STEPS = replace(DM, name="DM, 20 % more steps", steps=1.2)
"""The fair rival: what AsynDM costs at most, spent on steps."""

DECIDING = (
    DM,
    replace(DM, name="DM, CFG +20 %", cfg=1.2),
    replace(DM, name="DM, CFG +40 %", cfg=1.4),
    MORE_STEPS,
    CONCAVE,
    LAGGED,
    FRESH,
    by_level(LAGGED),
    by_level(FRESH),
    by_level(INVERTED),
    by_level(RANDOM),
    *(form(asyndm(k, timing)) for form in (replace, by_level) for k in (0.3, 0.5) for timing in ("lagged", "fresh")),
)
"""The methods that decide what is the default: fair rivals, AsynDM without and with normalisation
by level, and wrong masks."""

TRAINED = (
    DM,
    MORE_STEPS,
    CONCAVE,
    LAGGED,
    FRESH,
    INVERTED,
    RANDOM,
    *(asyndm(k, timing) for k in (0.3, 0.5) for timing in ("lagged", "fresh")),
    by_level(LAGGED),
    by_level(FRESH),
)
"""The methods for a model that was trained on two levels: as the model normalises in the first
place, wrong masks too, since it knows mixed levels by itself."""

MAIN = (DM, CONCAVE, asyndm(0.3), asyndm(0.5), LAGGED, asyndm(1.0), FRESH, INVERTED, RANDOM)
"""The methods of the main table."""

PEERS_ALONE = tuple(Method(peer, SYNCHRONOUS, peer=peer) for peer in PEERS)
PEERS_TOGETHER = tuple(Method(f"{peer} + AsynDM fresh, k = 0.7", FRESH.settings, peer=peer) for peer in PEERS)

VARIANTS = (
    CONCAVE,
    LAGGED,
    FRESH,
    asyndm(0.3, "fresh"),
    asyndm(1.0, "fresh"),
    asyndm(0.7, "static"),
    asyndm(0.7, "fresh", curve="piecewise linear"),
    asyndm(0.7, "fresh", curve="exponential"),
    asyndm(0.7, "fresh", threshold=0.5),
    asyndm(0.7, "fresh", threshold=2.0),
    controlled("lagged, k = 0.7, nothing lags at first", LAGGED, first=False),
    controlled("fresh, k = 0.7, first half of the steps", FRESH, stop=0.5),
    controlled("fresh, k = 0.7, second half of the steps", FRESH, start=0.5),
    controlled("fresh, k = 0.7, maps smoothed", FRESH, smooth=True),
)
"""Variants that the method leaves open, compared on the tuning half."""
