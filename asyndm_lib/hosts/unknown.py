"""A WebUI without an adapter: every use is refused with one message, and pictures are made without us."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from ..errors import Unsupported


class Unknown:
    """What is used of an :class:`common.adapter.Adapter` whose ``check`` refuses. It imports nothing of the host."""

    def detach(self, sampler: Any) -> None:
        """Do nothing: nothing was attached."""

    def check(self, p: Any) -> NoReturn:
        raise Unsupported("this WebUI is not supported; AUTOMATIC1111's WebUI 1.10, Forge, Forge Neo and reForge are")

    def typed_prompt(self, prompt: str, steps: int, styles: Sequence[str]) -> NoReturn:
        self.check(None)


adapter = Unknown()
