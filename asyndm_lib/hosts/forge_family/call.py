"""One call of the host's sampler function, and what it changes in the host while it lasts."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ...models.parts.patching import replaced
from ...run.host import Host
from ...run.run import Run
from ...samplers import table
from ...samplers.row import Options, Sampler
from ..common.attaching import ReadTargets, SamplerCall
from ..common.flows import check_kind
from ..common.guidance import guide_as_the_host
from ..common.inpainting import blending
from ..common.noise_levels import Levels, levels_of
from ..common.others_counts import functions_of
from ..common.rehearsal import rehearsal, rewinding
from .models import check_model, steady, unet_of
from .preconditioning import preconditioned
from .predictors import is_flow, maps_of, timestep_of
from .unet_rows import UNetRows
from .variance_preserving import in_sigma_space


class Call:
    """A call of the host's sampler function for ``p``.

    ``host``, ``options``, ``rewind``: see :class:`attaching.Call`. ``sampling``: k-diffusion's
    samplers as the host has them. ``samplers``: ours by the names of the host's. ``blends_apart``:
    ``apart`` of :func:`inpainting.blending`.
    """

    sampling: ModuleType
    samplers: Mapping[str, Sampler] = table.SAMPLERS
    blends_apart = False

    def __init__(self, p: Any, read_targets: ReadTargets, call: SamplerCall):
        self._others = functions_of(unet_of(p.sd_model), p.sd_model.forge_objects.unet.model_options)
        self.rewind = rewinding(p, call.model, call.x.device)
        name, model, x, options = call.name, call.model, call.x, dict(call.options)
        self._p, self._read_targets, self._model = p, read_targets, model
        self._extra_args = options.pop("extra_args")
        callback, disable = options.pop("callback", None), options.pop("disable", None)
        self._variance_preserving = "timesteps" in options
        levels = self._levels(self.samplers[name], x, options)
        guide_as_the_host(self.samplers[name], model)
        self.options, self._input, sampling = levels.options, levels.input, self.sampling
        self.host = Host(
            model=unet_of(p.sd_model),
            descents=levels.descents,
            predict=self._predict,
            step=lambda: model.step,
            unconditional=self._unconditional,
            # The host hangs its seeded random numbers into k-diffusion's module.
            randn_like=lambda x: sampling.torch.randn_like(x),
            callback=callback,
            progress=lambda steps: sampling.trange(len(steps), disable=disable),
            rehearsal=self._rehearsal,
            steady=self._steady,
        )

    def _predict(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self._model(x, self._input(sigma), **self._extra_args)

    def _levels(self, sampler: Sampler, x: Tensor, options: Options) -> Levels:
        predictor = self._predictor()
        check_kind(sampler, is_flow(predictor))
        maps = functools.partial(maps_of, predictor)
        return levels_of(sampler, self._model, x, options, maps, self.sampling, timestep_of(predictor))

    def _predictor(self) -> Any:
        """The part of the host's present model that knows its noise levels and scales for it."""
        raise NotImplementedError

    def _steady(self) -> bool:
        return steady(self._p.sd_model.forge_objects.unet)

    def _unconditional(self) -> Tensor:
        return self._model.last_noise_uncond

    @contextmanager
    def patched(self, run: Run) -> Iterator[None]:
        """The host's denoiser with a noise level per pixel, inside the ``with`` only."""
        model, rows, engine = self._model, UNetRows(run, self._model, self._extra_args), ExitStack()
        with ExitStack() as stack:
            stack.callback(engine.close)
            self._enter(engine, run, rows)
            moved = functools.partial(self._moved, engine, run, rows, model.update_inner_model)
            stack.enter_context(replaced(model, "update_inner_model", moved))
            stack.enter_context(rows.counted())
            if self._variance_preserving:
                stack.enter_context(in_sigma_space(model, run))
            stack.enter_context(blending(self._p.scripts, run, lambda map: map, self.blends_apart))
            yield

    def _enter(self, engine: ExitStack, run: Run, rows: UNetRows) -> None:
        engine.enter_context(preconditioned(self._predictor(), run, rows.levels))
        engine.enter_context(rows.named(self._p.sd_model))

    def _moved(self, engine: ExitStack, run: Run, rows: UNetRows, update_inner_model: Callable[[], None]) -> None:
        """Go on with another UNet and text encoder: the host has loaded its refiner."""
        engine.close()
        run.leave()
        update_inner_model()
        check_model(self._p.sd_model)
        run.move(unet_of(self._p.sd_model), self._read_targets())
        self._enter(engine, run, rows)

    def _rehearsal(self) -> AbstractContextManager[None]:
        device = torch.device(self._p.sd_model.forge_objects.unet.load_device)
        return rehearsal(self._p, self._model, device, self._others)
