"""A WebUI that we do not know: every use is refused with one message.

Pictures are made without us. Nothing of the WebUI is imported: nothing is known to be there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from ..errors import Unsupported


class Unknown:
    """The part of an :class:`common.adapter.Adapter` that is used where ``check`` refuses."""

    def detach(self, sampler: Any) -> None:
        """Do nothing: nothing was attached."""

    def check(self, p: Any) -> NoReturn:
        raise Unsupported(
            "this WebUI is not supported; AUTOMATIC1111's WebUI 1.10, Forge, Forge Neo, reForge and Forge Classic are"
        )

    def typed_prompt(self, prompt: str, steps: int, styles: Sequence[str]) -> NoReturn:
        self.check(None)


adapter = Unknown()
