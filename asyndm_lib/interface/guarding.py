"""The WebUI's hooks of ours, in which a fault costs a person nothing but what the hook is for."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from ..errors import fault
from . import messages

WITHOUT = "Pictures may be made without AsynDM"
NO_SHEET = "The sheet of the masks is missing"


def guarded(consequence: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Makes of a hook ``(script, p, …)`` one whose fault is one message for the person.

    The WebUI would print a traceback, and say nothing under the picture. ``consequence``: what
    follows from a fault.
    """

    def decorator(hook: Callable[..., None]) -> Callable[..., None]:
        @wraps(hook)
        def run(script: Any, p: Any, *args: Any, **options: Any) -> None:
            try:
                hook(script, p, *args, **options)
            except Exception as error:
                messages.report(p, f"{fault(error)}. {consequence}")

        return run

    return decorator
