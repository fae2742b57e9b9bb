"""One call of Forge Classic's sampler function."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import k_diffusion.sampling
import torch
from ldm_patched.k_diffusion import sampling as second_sampling
from modules import sd_samplers_cfg_denoiser
from torch import Tensor

from ...models.parts.patching import replaced
from ...run.model_call import of_rows
from ...run.run import Run
from ...samplers.row import Options, Sampler
from ...samplers.table import CLASSIC
from ..common.attaching import ReadTargets, SamplerCall
from ..common.noise_levels import Levels
from ..forge_family import call as family
from ..forge_family.comfyui import predictor_of
from ..forge_family.patchers import one_account
from ..forge_family.unet_rows import UNetRows
from ..forge_family.variance_preserving import told_sigma


class Call(family.Call):
    """The host has two copies of k-diffusion.

    Its labels with a schedule of ComfyUI's ("Turbo", "SGMUniform", DDPM) are of the second one,
    whose random numbers are PyTorch's own and not the picture's.
    """

    samplers = CLASSIC

    def __init__(self, p: Any, read_targets: ReadTargets, call: SamplerCall):
        second = p.sampler.func.__module__ == second_sampling.__name__
        self.sampling = second_sampling if second else k_diffusion.sampling
        super().__init__(p, read_targets, call)

    def _levels(self, sampler: Sampler, x: Tensor, options: Options) -> Levels:
        if sampler.noise in ("default", "unseeded"):
            options = {**options, "noise_sampler": self.sampling.default_noise_sampler(x)}
        if sampler.noise == "Brownian" and options.get("noise_sampler") is None:
            sigmas = options["sigmas"]
            extent = sigmas[sigmas > 0].min(), sigmas.max()
            motion = second_sampling.BrownianTreeNoiseSampler(x, *extent, cpu=True)
            options = {**options, "noise_sampler": motion}
        return super()._levels(sampler, x, options)

    def _predictor(self) -> Any:
        return predictor_of(self._p.sd_model)

    def _steady(self) -> bool:
        """The host loads a refiner where PyTorch counts no writes to it, and may begin the next job
        with it: what is made ahead would round otherwise than after another job.
        """
        return False

    def _enter(self, engine: ExitStack, run: Run, rows: UNetRows) -> None:
        objects = self._p.sd_model.forge_objects
        unet = objects.unet
        super()._enter(engine, run, rows)
        engine.enter_context(one_account(unet, objects.unet))

    @contextmanager
    def patched(self, run: Run) -> Iterator[None]:
        noise = _StartNoise(run)
        with (
            replaced(sd_samplers_cfg_denoiser, "torch", noise),
            replaced(self._model, "forward", partial(self._forward, noise, self._model.forward)),
            super().patched(run),
        ):
            yield

    def _forward(
        self, noise: _StartNoise, original: Callable[..., Tensor], x: Tensor, sigma: Tensor, **kwargs: Any
    ) -> Tensor:
        noise.sigma = told_sigma(self._model, sigma) if self._variance_preserving else sigma
        return original(x, sigma, **kwargs)


class _StartNoise:
    """PyTorch as the host's denoiser sees it, which draws the start picture's noise in inpainting.

    The host adds ``sigma * randn_like(picture)``, with ``sigma [B]``. Lagging pixels are given
    their own level's part.
    """

    def __init__(self, run: Run):
        self._run = run
        self.sigma: Tensor | None = None  # the host's of the present evaluation, [B]

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def randn_like(self, picture: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        noise, here = torch.randn_like(picture, *args, **kwargs), self._run.evaluating
        if here is None or self.sigma is None or noise.shape[-2:] != here.sigma.shape[-2:]:
            return noise
        share = (here.sigma / of_rows(self.sigma, here.sigma)).to(noise.dtype)
        return torch.where(here.lagging, noise * share, noise)
