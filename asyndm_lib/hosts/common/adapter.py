"""The adapter of a WebUI, made from the parts in which WebUIs differ."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ...prompt.prompt_targets import PromptTargets
from ...settings.settings import Settings
from . import attaching, text
from .attaching import MakeCall, Samplers
from .pieces import Region
from .task import EarlierChoice, Task


@dataclass(frozen=True)
class Adapter:
    """One WebUI, as the interface uses it.

    ``call``: its sampling call. ``samplers``: ours by the names of its sampler functions.
    ``checks``: each raises :class:`Unsupported` if the coming sampling call of the host's ``p``
    cannot run on sigma maps; the first that does is heard. ``reader``: reads prompts as its models
    do.
    """

    call: MakeCall
    samplers: Samplers
    checks: Sequence[Callable[[Any], None]]
    reader: text.Reader

    def check(self, p: Any) -> None:
        """Raise :class:`Unsupported` if ``p``'s coming sampling call cannot run on sigma maps."""
        for check in self.checks:
            check(p)

    def prompt_targets(self, p: Any, settings: Settings, chosen: EarlierChoice) -> PromptTargets | None:
        """The target words in the prompts of ``p``'s coming sampling call.

        None for the whole picture, and where a mask by hand alone counts.
        ``chosen``: what the first pass chose, which the second one keeps.
        """
        return self._targets(p, settings, chosen, self.reader.regions(p))

    def _targets(
        self, p: Any, settings: Settings, chosen: EarlierChoice, regions: Sequence[Region]
    ) -> PromptTargets | None:
        return None if settings.whole_picture else self.reader.prompt_targets(p, settings, chosen, regions)

    def typed_prompt(self, prompt: str, steps: int, styles: Sequence[str]) -> text.TypedPrompt:
        """A prompt as it would be read if a picture of ``steps`` steps were begun now; only reads.

        Raises :class:`Unsupported` while there is no model to read it, :class:`SettingsError` for
        one too intricate.
        """
        return self.reader.typed_prompt(prompt, steps, styles)

    def attach(self, p: Any, task: Task) -> None:
        """Have ``p``'s coming sampling call, which has passed :meth:`check`, run on sigma maps."""
        # A refiner has no regions any more; the targets in their prompts stay.
        read_targets = functools.partial(self._targets, p, task.settings, task.chosen, self.reader.regions(p))
        attaching.attach(p.sampler, self.samplers, functools.partial(self.call, p, read_targets), task)

    def detach(self, sampler: Any) -> None:
        """Give ``sampler``, which the batches of an img2img job share, its own function back."""
        attaching.detach(sampler)
