"""A host of its own, for machines without a WebUI: text-to-image.

It has ldm's model, or a flow's transformer, and k-diffusion's denoisers and schedules.
Every picture has its own random numbers from its own seed, drawn on the CPU, so that a batch holds
the pictures that its seeds give one by one, on any device.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from k_diffusion.external import CompVisDenoiser, CompVisVDenoiser
from k_diffusion.sampling import BrownianTreeNoiseSampler
from torch import Tensor

from ...clock.cells import sent
from ...clock.schedule import NoiseLevels, Schedule
from ...errors import SettingsError
from ...masks.choice import Chosen
from ...models.family import Row
from ...prompt.candidates import named_or_candidates, only_named
from ...prompt.prompt_targets import PromptTargets
from ...prompt.target_list import parse_targets
from ...run.host import Descent, Host, Progressbar
from ...run.model_call import Rows
from ...run.run import Run, masks_of
from ...run.step import Observer
from ...samplers.neo.table import LABELS as FLOW_LABELS
from ...samplers.row import Options, Sampler
from ...samplers.table import LABELS
from ...settings.settings import WORDS, Settings
from ..common.own_scalars import lms_coefficients
from ..common.per_pixel import eps_of_v, scalings
from .flow import FlowDenoiser
from .ldm_checkpoint import Checkpoint
from .schedules import make_sigmas
from .text_encoders import encode, pooled, tokenize

BELOW_ALL_NOISE = 1e-4
"""How far from the beginning of the way down some samplers begin a flow; Forge Neo's number."""

SYNCHRONOUS = Settings(whole_picture=True, concavity=0.0)
"""The picture without AsynDM: no pixel ever leaves the host's clock."""


@dataclass(frozen=True)
class Request:
    """One batch of pictures: the same words, one seed each. ``eta``: None for the sampler's own."""

    prompt: str
    negative: str
    seeds: Sequence[int]
    sampler: str
    schedule: str
    steps: int
    cfg: float
    width: int
    height: int
    eta: float | None = None


class Embedded:
    """Makes pictures with one checkpoint."""

    def __init__(self, checkpoint: Checkpoint):
        self._model = checkpoint
        self.alphas_cumprod = checkpoint.alphas_cumprod
        self._denoiser: Any
        self._levels: NoiseLevels | FlowDenoiser
        if checkpoint.flow:
            self._denoiser = self._levels = FlowDenoiser(self, checkpoint.shift, checkpoint.device)
        else:
            kind = CompVisVDenoiser if checkpoint.parameterization == "v" else CompVisDenoiser
            self._denoiser = kind(self)
            self._levels = NoiseLevels(checkpoint.alphas_cumprod.cpu().double())

    @property
    def checkpoint(self) -> Checkpoint:
        """The model."""
        return self._model

    def sampler(self, label: str) -> tuple[Sampler, Options]:
        """The sampler of that label, with its options. Those of a flow are Forge Neo's.

        Raises :class:`SettingsError` for one that is not for this model.
        """
        if not self._model.flow:
            fit = LABELS
        else:
            fit = {
                other: (sampler, {**options, "flow": True} if sampler.takes("flow") else options)
                for other, (sampler, options) in FLOW_LABELS.items()
                if not sampler.not_for_flows and sampler.scalars != "marginals"  # Neo's own, of UniPC
            }
        if label in fit:
            return fit[label]
        unfit = FLOW_LABELS[label][0].not_for_flows if self._model.flow and label in FLOW_LABELS else None
        raise SettingsError(unfit or f"the sampler {label!r} is not for {self._model.name}; it has {', '.join(fit)}")

    def check(self, request: Request) -> None:
        """Raise :class:`SettingsError` if the request does not fit the sampler or the model.

        It names the value.
        """
        multiple, model = self._model.multiple, self._model.name
        for name, side in (("width", request.width), ("height", request.height)):
            if side % multiple or side <= 0:
                raise SettingsError(f"{name} {side} does not fit {model}: it must be a multiple of {multiple}")
        sampler, _ = self.sampler(request.sampler)
        if request.eta is not None and not sampler.takes("eta"):
            having = [label for label, (other, _) in LABELS.items() if other.takes("eta")]
            raise SettingsError(f"the sampler {request.sampler!r} has no eta; {', '.join(having)} have one")
        if sampler.levels != "sigmas" and request.schedule != "automatic":
            raise SettingsError(
                f"{request.sampler} has noise levels of its own: the schedule {request.schedule!r} is not for it"
            )
        if request.steps < sampler.least_steps:
            raise SettingsError(f"{request.sampler} needs at least {sampler.least_steps} steps, not {request.steps}")

    def targets(self, request: Request, settings: Settings) -> PromptTargets | None:
        """Where the target words, or those to choose from, stand in the prompt.

        It is None for the whole picture, and where a mask by hand alone counts.
        """
        if settings.whole_picture:
            return None
        images = len(request.seeds)
        named, prompts = [parse_targets(settings.targets)] * images, [[[(0, request.prompt)]]] * images
        find = named_or_candidates if settings.region == WORDS else only_named
        return find(named, prompts, lambda text: tokenize(self._model.text, text))

    @torch.no_grad()
    def sample(
        self,
        request: Request,
        settings: Settings,
        progress: Progressbar = iter,
        observers: Sequence[Observer] = (),
        chose: Callable[[Chosen], None] | None = None,
        painted: Tensor | None = None,
        report: Callable[[str], None] | None = None,
    ) -> Tensor:
        """The final latents ``[B, C, h, w]`` of a request that passes :meth:`check`.

        ``progress`` wraps the step counter of each pass, ``observers`` see every step (see
        :mod:`run`). ``chose`` is told afterwards which words became targets. ``painted`` is a mask
        by hand, for settings whose region is one (:func:`masks.hand.by_hand`). ``report`` is told
        afterwards of every problem of the run. Raises :class:`Unsupported` for a prompt that is too
        long.
        """
        with self._prepared(request, settings, progress, observers, painted) as (run, sampler, x, options), run:
            x = run.sample(sampler, x, **options)
            if chose is not None:
                chose(run.chosen)
            if report is not None:
                for problem in sorted(run.problems):
                    report(problem)
            return x

    @torch.no_grad()
    def check_run(self, request: Request, settings: Settings, painted: Tensor | None = None) -> None:
        """Raise what :meth:`sample` would raise before its first step.

        Also raises :class:`TooFewSteps` where no step is left in which anything could differ:
        :meth:`sample` goes through them all the same.
        """
        with self._prepared(request, settings, iter, (), painted) as (run, *_):
            run.check_steps()

    @contextmanager
    def _prepared(
        self,
        request: Request,
        settings: Settings,
        progress: Progressbar,
        observers: Sequence[Observer],
        painted: Tensor | None,
    ) -> Iterator[tuple[Run, Sampler, Tensor, dict[str, Any]]]:
        """A run that is about to begin: with its sampler, the initial latents and the sampler's
        options.
        """
        model, batch = self._model, len(request.seeds)
        noise = _Noise(request.seeds)
        texts = self.conditioning([request.prompt, request.negative])
        conditioning = {name: value.repeat_interleave(batch, dim=0) for name, value in texts.items()}
        size = (batch, model.channels, request.height // model.shrink, request.width // model.shrink)
        x = noise.like(torch.empty(size, device=model.device))
        sampler, _ = self.sampler(request.sampler)
        scaled = sampler.levels == "timesteps"
        ways, options = self._ways(request)
        if not scaled:
            x = x * ways[0][0]
        if sampler.noise == "Brownian":
            extent = ways[0][ways[0] > 0].min(), ways[0].max()
            options["noise_sampler"] = BrownianTreeNoiseSampler(x, *extent, seed=list(request.seeds))
        cfg = request.cfg / (sampler.cfg_divisor or 1.0)
        names: list[Row] = [(image, part) for part in (0, None) for image in range(batch)]
        last: list[Tensor] = []
        running: list[Run] = []

        def predict(x: Tensor, sigma: Tensor) -> Tensor:
            rows = torch.cat([x, x])
            guided = self._eps if scaled else self.denoised
            with running[0].rows(names) as here:
                conditional, unconditional = guided(rows, sigma, conditioning, here).chunk(2)
            last[:] = [unconditional]
            return unconditional + (conditional - unconditional) * cfg

        maps = self._levels.sigma_to_t, self._levels.t_to_sigma
        host = Host(
            model=model.diffusion_model,
            descents=[Descent(Schedule(sigmas[:-1], *maps), list(sigmas)) for sigmas in ways],
            predict=predict,
            step=lambda: 0,  # no prompt editing
            unconditional=lambda: last[0],
            randn_like=noise.like,
            callback=None,
            progress=progress,
            rehearsal=noise.kept,
            steady=lambda: True,
        )
        masks = functools.partial(masks_of, painted=painted)
        run = Run(host, settings, self.targets(request, settings), x, observers, masks)
        running.append(run)
        try:
            yield run, sampler, x, options
        finally:
            running.clear()  # predict would keep the run until the garbage collector comes

    def _ways(self, request: Request) -> tuple[list[Tensor], dict[str, Any]]:
        """The descents of the request's sampler, and the sampler's options."""
        sampler, options = self.sampler(request.sampler)
        options = dict(options) if request.eta is None else {**options, "eta": request.eta}
        if sampler.timesteps is not None:
            return [self._levels.t_to_sigma(sampler.timesteps(request.steps))], options
        if sampler.levels == "range":
            options |= {"n": request.steps}
            options |= {"sigma_min": self._denoiser.sigma_min, "sigma_max": self._denoiser.sigma_max}
        else:
            flow = isinstance(self._denoiser, FlowDenoiser)
            # The schedules that the WebUIs take by themselves for some samplers are none for flows.
            schedule = "uniform" if flow and request.schedule == "automatic" else request.schedule
            options["sigmas"] = sigmas = make_sigmas(self._denoiser, schedule, sampler, request.steps)
            if flow and sampler.begins_below_all_noise:
                sigmas[0] = self._denoiser.shifted(torch.tensor(1 - BELOW_ALL_NOISE))
        if sampler.scalars == "linear multistep":
            options["coefficients"] = lms_coefficients(sigmas)
        return sampler.descents(options, self._model.device)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> np.ndarray:
        """``[B, C, h, w]`` → pictures, uint8 ``[B, H, W, 3]``."""
        pictures = [self._model.autoencoder(latent[None] / self._model.scale)[0] for latent in latents]
        levels = (torch.stack(pictures).clamp(-1, 1) + 1) * 127.5
        return levels.round().byte().permute(0, 2, 3, 1).cpu().numpy()

    def conditioning(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """What the model is told of the texts, by the names of its arguments; a row for each."""
        encoder = self._model.text
        context = encode(encoder, texts, self._model.device)
        return {"context": context, "y": pooled(encoder, texts, context)} if self._model.flow else {"context": context}

    def apply_model(self, x: Tensor, t: Tensor, cond: dict[str, Tensor]) -> Tensor:
        """The model, under the name by which k-diffusion's denoiser calls it. ``t``: ``[n]``."""
        on_gpu = x.device.type == "cuda"
        with torch.autocast("cuda", torch.float16) if on_gpu else nullcontext():
            return self._model.diffusion_model(x, t, **cond).float()

    def denoised(self, rows: Tensor, sigma: Tensor, cond: dict[str, Tensor], here: Rows | None = None) -> Tensor:
        """The predicted pictures in ``rows [n, C, h, w]`` at ``sigma``, or each pixel at its sigma
        in ``here``. ``cond``: the conditioning of the rows.
        """
        with scalings(self._denoiser, here):
            return self._denoiser(rows, sigma * rows.new_ones(len(rows)), cond=cond)

    def _eps(self, rows: Tensor, sigma: Tensor, cond: dict[str, Tensor], here: Rows) -> Tensor:
        """The model's eps for variance-preserving ``rows``, as DDIM wants it."""
        t = self._levels.sigma_to_t(sigma)
        output = self.apply_model(rows, sent(t, rows.device, rows.dtype) * rows.new_ones(len(rows)), cond)
        if self._model.parameterization == "eps":
            return output
        return eps_of_v(rows, output, torch.where(here.lagging, here.sigma, sigma.to(here.sigma)))


class _Noise:
    """Random numbers of a batch, each picture's from its own seed."""

    def __init__(self, seeds: Sequence[int]):
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def like(self, x: Tensor) -> Tensor:
        """Standard normal numbers in the shape of ``x [B, …]``."""
        return torch.stack([torch.randn(x.shape[1:], generator=g) for g in self._generators]).to(x)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """What is drawn inside is drawn again after."""
        states = [generator.get_state() for generator in self._generators]
        yield
        for generator, state in zip(self._generators, states, strict=True):
            generator.set_state(state)
