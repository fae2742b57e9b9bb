"""A WebUI without an adapter: every use is refused with one message, and pictures are made without us."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from ..errors import Unsupported


def detach(sampler: Any) -> None:
    """Nothing was attached."""


def check(p: Any) -> NoReturn:
    raise Unsupported("this WebUI is not supported; AUTOMATIC1111's WebUI 1.10, Forge, Forge Neo and reForge are")


def typed_prompt(prompt: str, steps: int, styles: Sequence[str]) -> NoReturn:
    check(None)
