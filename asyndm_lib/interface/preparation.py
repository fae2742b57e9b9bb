"""Around every batch of a WebUI: read the settings, prepare each sampling call, or say why not."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

from ..errors import AsynDMError
from ..masks.choice import Chosen
from . import arguments, choices, gallery, infotext, messages, options


def begin(p: Any) -> None:
    """Before every batch of ``p``."""
    p.asyndm_asked = False
    if p.iteration == 0:
        p.asyndm_chosen = {}
    gallery.begin(p)


def end(p: Any, args: Sequence[Any]) -> None:
    """After every batch's sampling: say so where the host never asked before it."""
    if p.asyndm_asked:
        return
    try:
        wanted = arguments.of(p, args) is not None
    except AsynDMError:
        wanted = True
    if wanted:
        messages.report(p, "a script samples in its own way. The picture was made without AsynDM")


def prepare(host: ModuleType, p: Any, args: Sequence[Any]) -> None:
    """Have the coming sampling call of ``p`` run on sigma maps, if ``args`` ask for it and it can.

    ``host``: a WebUI's adapter (see :mod:`hosts`). Whatever hinders it becomes one message, and the host
    samples by itself; the infotext tells of AsynDM only where it worked.
    """
    p.asyndm_asked = True
    host.detach(p.sampler)
    second = getattr(p, "is_hr_pass", False)
    if not second:
        infotext.erase(p.extra_generation_params)

    def report(text: str) -> None:
        messages.report(p, text)

    def refused(reason: object) -> None:
        if not second:
            infotext.erase(p.extra_generation_params)
        report(f"{reason}. The {'second pass' if second else 'picture'} was made without AsynDM")

    try:
        asked = arguments.of(p, args)
    except AsynDMError as error:  # the same in both passes
        report(f"{error}. The picture was made without AsynDM")
        return
    settings = asked.of_second_pass() if asked and second else asked
    if settings is None:
        return
    try:
        host.check(p)
        targets = None if settings.whole_picture else host.prompt_targets(p, settings)
    except AsynDMError as error:
        refused(error)
        return
    if targets is not None and not targets.targets:
        refused("no targets are named, and no word of the prompt names a thing")
        return

    missing = targets.missing() if targets else []
    names = ", ".join(f'"{target!s:.80}"' for target in missing)
    if missing and len(missing) == len(targets.targets):
        refused(f"{names} not found in the prompt")
        return
    if missing:
        report(f"{names} not found in the prompt; the other targets were used")
    if targets is not None and any(not targets.named[image] for image in targets.automatic):
        report("no word of some prompts names a thing; their pictures were made without AsynDM")
    film = gallery.film(p, settings, targets)

    def chose(chosen: Chosen) -> None:
        choices.note(p, chosen)
        if film is not None:
            film.chose(chosen)

    host.attach(p, settings, targets, report, refused, chose, film, options.live_view())
    p.extra_generation_params.update(infotext.write(asked))
