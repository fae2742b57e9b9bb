"""One call of Forge Neo's sampler function, where it is not as Forge's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from backend.patcher.base import set_model_options_post_cfg_function
from modules import sd_samplers_common, shared
from torch import Tensor

from ...models.parts.patching import replaced
from ...run.run import Run
from ...samplers.neo.table import SAMPLERS
from ...samplers.row import Options, Sampler
from ..common.noise_levels import Levels
from ..forge import call
from .noise_levels import levels_of


class Call(call.Call):
    """Forge's call, in which the CFG++ samplers get the unconditional picture.

    The other samplers have no use for it.
    """

    samplers = SAMPLERS

    def _levels(self, sampler: Sampler, x: Tensor, options: Options) -> Levels:
        self._guided_twice = sampler.needs_unconditional
        self._uncond: Tensor | None = None
        return levels_of(sampler, self._model, x, options, self._p.sd_model.forge_objects.unet.model.predictor)

    def _unconditional(self) -> Tensor:
        return self._uncond

    @contextmanager
    def patched(self, run: Run) -> Iterator[None]:
        with super().patched(run), _no_more_than_now(self._extra_args), _told_of_weights_in_place():
            if self._guided_twice:
                # As the host's own functions do it: by an extra option of the model call, without
                # which guidance of 1 would leave the unconditional picture out.
                options = dict(self._extra_args.get("model_options", {}))
                self._extra_args["model_options"] = set_model_options_post_cfg_function(
                    options, self._guided, disable_cfg1_optimization=True
                )
            yield

    def _guided(self, args: dict[str, Any]) -> Tensor:
        self._uncond = args["uncond_denoised"]
        return args["denoised"]


@contextmanager
def _told_of_weights_in_place() -> Iterator[None]:
    """Inside the ``with`` the denoiser is told of every refiner.

    The host tells it only where it loads a model of its own.
    By an option it loads the refiner's weights into the same model; LoRAs then put another patcher
    in ours' place.
    """
    original = sd_samplers_common.apply_refiner

    def apply_refiner(denoiser: Any, *args: Any, **kwargs: Any) -> bool:
        refined = original(denoiser, *args, **kwargs)
        if refined and shared.opts.refiner_fast_sd:
            denoiser.update_inner_model()
        return refined

    with replaced(sd_samplers_common, "apply_refiner", apply_refiner):
        yield


@contextmanager
def _no_more_than_now(values: dict[str, Any]) -> Iterator[None]:
    """Inside the ``with`` values may be added, which are gone afterwards.

    What is replaced stays: it is a refiner's.
    """
    before = set(values)
    try:
        yield
    finally:
        for key in values.keys() - before:
            del values[key]
