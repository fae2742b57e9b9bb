"""The rounds of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence

from .methods import (
    CONCAVE,
    DECIDING,
    DM,
    FLOW_USERS,
    FRESH,
    INVERTED,
    LAGGED,
    MAIN,
    PAPER,
    PEERS_ALONE,
    PEERS_TOGETHER,
    RANDOM,
    TEXT_AT_MEAN,
    TRAINED,
    USERS,
    VARIANTS,
    Method,
    Way,
)
from .runner import Round

SEEDS = 16
"""How many pictures the report has of a prompt."""

_USUAL = (DM, CONCAVE, FRESH)
FULL: tuple[Round, ...] = (
    # All of it with few seeds first, so that a stop leaves something of everything.
    Round([PAPER], MAIN, "report", 0, 4),
    Round([PAPER], PEERS_ALONE, "report", 0, 2),
    Round(USERS, _USUAL, "report", 0, 2),
    Round([PAPER], (DM, *VARIANTS), "tuning", 0, 2),
    Round([PAPER], PEERS_TOGETHER, "report", 0, 2),
    Round([PAPER], MAIN, "report", 4, SEEDS),
    Round(USERS, _USUAL, "report", 2, SEEDS),
    Round([PAPER], PEERS_ALONE, "report", 2, SEEDS),
    Round([PAPER], PEERS_TOGETHER, "report", 2, SEEDS),
)

_MASKS = (DM, CONCAVE, LAGGED, FRESH, INVERTED, RANDOM)
SCENERY: tuple[Round, ...] = (
    Round([PAPER], _MASKS, "report", 0, 4),
    Round(USERS[::2], (*_USUAL, LAGGED), "report", 0, 4),
    Round([PAPER], _MASKS, "report", 4, SEEDS),
    Round(USERS[::2], (*_USUAL, LAGGED), "report", 4, SEEDS),
)
"""The rounds of the model whose scenes are in sceneries."""

DECIDED = 32
"""How many pictures of a prompt decide: 6,400 a line."""



def _decided(methods: Sequence[Method]) -> tuple[Round, ...]:
    """All of ``methods`` with users' settings, then with the paper's, four pictures of each prompt
    at a time."""
    return tuple(
        Round(ways, methods, "report", first, first + 4)
        for ways in (USERS[::2], [PAPER])
        for first in range(0, DECIDED, 4)
    )


DECIDING_ROUNDS = _decided(DECIDING)
"""The rounds that decide what is the default of a UNet. Nothing of them is chosen on the report
prompts."""

TWO_LEVELS = _decided(TRAINED)
"""The rounds of a UNet that was trained on two levels."""

_TRANSFORMER = (*_MASKS, TEXT_AT_MEAN)
TRANSFORMER: tuple[Round, ...] = (
    Round(FLOW_USERS, _TRANSFORMER, "report", 0, 4),
    *(Round([way], _TRANSFORMER, "report", 4, SEEDS) for way in FLOW_USERS),
)
"""The rounds of the embedded transformer."""

SMALL_WAY = Way("DPM++ 2M Karras 12", "DPM++ 2M", "karras", 12, 7.0)
SMALL = (Round([SMALL_WAY], (DM, LAGGED), "report", 0, 1),)
"""One round for a CPU, on a few prompts of each set. It shows that the evaluation works, and
decides nothing."""

SMALL_FLOW = (Round([Way("Euler 12, CFG 4", "Euler", "automatic", 12, 4.0)], (DM, LAGGED), "report", 0, 1),)
"""The same for the transformer."""

SMALL_PROMPTS = 4
