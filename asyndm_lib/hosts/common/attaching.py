"""Puts a run in the place of one call of the host's sampler function.

The host keeps its samplers' entry points, its CFG denoiser, its callbacks and its random numbers; what
changes is the update formula between two model calls, and the noise level that each pixel has in one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NoReturn, Protocol

from modules import sd_samplers
from torch import Tensor

from ...errors import Unsupported
from ...masks.choice import Chosen
from ...pictures.film import Film
from ...prompt.prompt_targets import PromptTargets
from ...run.host import Host
from ...run.run import Run
from ...settings.settings import Settings
from .live_view import LiveView

Report = Callable[[str], None]
"""Shows the person one message."""


class Call(Protocol):
    """One call of a host's sampler function.

    ``host``: the host as a run sees it. ``options``: what is left of the host's options for the sampler itself.
    """

    host: Host
    options: dict[str, Any]

    def patched(self, run: Run) -> AbstractContextManager:
        """The host's denoiser with a noise level per pixel, inside the ``with`` only."""


Samplers = Mapping[str, Callable[..., Tensor]]
"""Ours by the names of the host's sampler functions."""

MakeCall = Callable[[Any, Settings, str, Any, Tensor, dict[str, Any]], Call]
"""``(p, settings, name, model, x, options)``: the host's call ``(model, x, **options)`` of the function ``name``."""


def check_sampler(p: Any, samplers: Samplers, labels: Iterable[str]) -> None:
    """Raise :class:`Unsupported` if the sampler of ``p``'s coming sampling call is none of ``samplers``.

    ``labels``: how the host calls those.
    """
    if _function_name(p.sampler) not in samplers:
        adaptive = _label(p) == "DPM adaptive"
        refuse_sampler(p, "chooses its own steps" if adaptive else "is not one that AsynDM knows", labels)


def refuse_sampler(p: Any, why: str, labels: Iterable[str]) -> NoReturn:
    """Raise :class:`Unsupported` for the sampler of ``p``'s coming sampling call; ``labels``: use one of those."""
    here = [label for label in labels if label in sd_samplers.all_samplers_map]
    raise Unsupported(f"the sampler {_label(p)!r} {why}; use {', '.join(here)}")


def _label(p: Any) -> str:
    return (p.hr_sampler_name if getattr(p, "is_hr_pass", False) else None) or p.sampler_name


def _function_name(sampler: Any) -> str:
    return getattr(sampler.func, "__name__", "")


def attach(
    make_call: MakeCall,
    samplers: Samplers,
    p: Any,
    settings: Settings,
    targets: PromptTargets | None,
    report: Report,
    refused: Callable[[Unsupported], None],
    chose: Callable[[Chosen], None],
    film: Film | None = None,
    live_view: bool = False,
) -> None:
    """Have the coming sampling call of ``p`` run on sigma maps, once.

    ``p`` has passed the adapter's ``check``. ``targets``: None for the whole picture. What shows only at the call goes
    to ``refused``, and the host samples by itself. ``chose`` is told which words became targets where none were
    named, of an interrupted picture too. ``film``: what is to observe the run. ``live_view``: show what
    lags in the host's previews.
    """
    sampler = p.sampler
    detach(sampler)
    original, name = sampler.func, _function_name(sampler)

    # The host reads the signature to decide which options to pass; wraps() keeps it.
    @functools.wraps(original)
    def sample(model: Any, x: Tensor, **options: Any) -> Tensor:
        detach(sampler)
        knots = options.get("sigmas", options.get("timesteps"))
        if knots is not None and len(knots) < 2:
            return original(model, x, **options)  # nothing to sample
        try:
            call = make_call(p, settings, name, model, x, dict(options))
            live = LiveView() if live_view else None
            run = Run(call.host, settings, targets, x, [watching for watching in (film, live) if watching is not None])
        except Unsupported as error:
            refused(error)
            return original(model, x, **options)
        with run, call.patched(run), live.shown() if live else nullcontext():
            try:
                x = run.sample(samplers[name], x, **call.options)
            finally:
                chose(run.chosen)
        for problem in sorted(run.problems):
            report(problem)
        return x

    sample.asyndm_original = original
    sampler.func = sample


def detach(sampler: Any) -> None:
    """Give ``sampler`` its own function back; it may be shared by the batches of an img2img job."""
    if hasattr(sampler, "func"):
        sampler.func = getattr(sampler.func, "asyndm_original", sampler.func)
