"""Presets: named sets of settings, a button for each."""

from __future__ import annotations

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    "paper": {
        "concavity": 0.5,
        "curve": "quadratic",
        "mask_timing": "lagged",
        "threshold": 1.0,
        "whole_picture": False,
    },
    "gentle": {
        "concavity": 0.3,
        "curve": "quadratic",
        "mask_timing": "lagged",
        "threshold": 1.0,
        "whole_picture": False,
    },
    "strong": {
        "concavity": 0.7,
        "curve": "quadratic",
        "mask_timing": "fresh",
        "threshold": 1.0,
        "whole_picture": False,
    },
    "whole_picture": {
        "concavity": 0.5,
        "curve": "quadratic",
        "mask_timing": "lagged",
        "threshold": 1.0,
        "whole_picture": True,
    },
}
"""The presets by name.

All set the same settings, so that one leaves nothing of another behind. The sampler's own eta
stays.
"""

HELP: dict[str, str] = {
    "paper": "As in the paper: the targets lag by a concavity of 0.5",
    "gentle": "The targets lag less: concavity 0.3",
    "strong": "The targets lag more: concavity 0.7, and each step goes by its own mask",
    "whole_picture": "Everything lags alike, and the targets play no part: concavity 0.5",
}


def label(name: str) -> str:
    """What the preset's button says."""
    return name.replace("_", " ").capitalize()
