"""Presets: named sets of settings, a button for each."""

from __future__ import annotations

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"concavity": 0.5, "curve": "quadratic", "mask_timing": "lagged", "threshold": 1.0},
    "gentle": {"concavity": 0.3, "curve": "quadratic", "mask_timing": "lagged", "threshold": 1.0},
    "strong": {"concavity": 0.7, "curve": "quadratic", "mask_timing": "fresh", "threshold": 1.0},
}
"""The presets by name.

All set the same settings, so that one leaves nothing of another behind. The sampler's own eta
stays.
"""

HELP: dict[str, str] = {
    "paper": "The paper's settings: quadratic, lagged masks, concavity 0.5",
    "gentle": "The targets lag less: concavity 0.3",
    "strong": "The targets lag more: concavity 0.7, each step by its own mask",
}
