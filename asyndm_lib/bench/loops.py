"""A whole sampling loop twice, k-diffusion's own and ours, on the same model and noise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import k_diffusion.sampling
import torch
from k_diffusion.external import DiscreteEpsDDPMDenoiser
from torch import Tensor

from ..clock.schedule import Schedule, on
from ..demo.training.networks import alphas_cumprod
from ..hosts.common.per_pixel import scalings
from ..hosts.standalone.flow import FlowDenoiser
from ..prompt.prompt_targets import PromptTargets
from ..prompt.target_list import parse_targets
from ..prompt.token_search import Token
from ..run.host import Descent, Host
from ..run.run import Run
from ..samplers.table import LABELS
from ..settings.settings import AS_THE_MODEL, BY_LEVEL, Settings
from .measure import Begin
from .models import Model

CFG = 7.0
WORDS = ("cat", "dog", "bird", "tree", "house", "boat", "cloud", "lamp")


def _nothing() -> None:
    pass


class _Denoiser(DiscreteEpsDDPMDenoiser):
    """A UNet as k-diffusion sees it. On a GPU it runs under autocast, as in the WebUIs."""

    def get_eps(self, x: Tensor, t: Tensor, **conditioning: Any) -> Tensor:
        with torch.autocast("cuda", torch.float16) if x.is_cuda else nullcontext():
            return self.inner_model(x, t, **conditioning).float()


class _Flow:
    """A flow's transformer as its denoiser calls it: in its own precision, as in the WebUIs."""

    def __init__(self, model: Model):
        self._model, self._dtype = model.model, next(model.model.parameters()).dtype

    def apply_model(self, x: Tensor, t: Tensor, **conditioning: Any) -> Tensor:
        return self._model(x.to(self._dtype), t, **conditioning).float()


SHIFT = 3.0
"""The shift of Stable Diffusion 3's way down; Flux.1's is hardly another."""


class Loop:
    """One case's two loops: ``plain()`` and ``asyndm()`` return the final latents of the same
    start.

    Everything is on in ``asyndm()``: masks of ``targets`` target words and new clocks in every
    step, and CFG, but for models that have a guidance of their own. ``by_level``: whether its
    normalisation is by level. ``begin()`` is called where the steps begin that make the latents.
    """

    def __init__(
        self,
        model: Model,
        sampler: str,
        batch: int,
        steps: int,
        device: torch.device,
        targets: int = 2,
        by_level: bool = False,
    ):
        self._batch, self._words = batch, WORDS[:targets]
        self._by_level = by_level
        normalisation = BY_LEVEL if by_level else AS_THE_MODEL
        self._settings = Settings(targets=", ".join(self._words), mask_timing="fresh", normalisation=normalisation)
        self._model = model.model
        self._denoiser: FlowDenoiser | _Denoiser
        if model.flow:
            self._denoiser = FlowDenoiser(_Flow(model), SHIFT, device, model.timesteps)
        else:
            self._denoiser = _Denoiser(model.model, alphas_cumprod(), quantize=False).to(device)
        self._sampler, self._options = LABELS[sampler]
        self.sigmas = self._denoiser.get_sigmas(steps)
        random = torch.Generator().manual_seed(1)
        shape = (batch, model.channels, model.size, model.size)
        self._x = torch.randn(shape, generator=random).to(device) * self.sigmas[0]
        dtype = next(model.model.parameters()).dtype
        self._parts = (0, None) if model.guidance is None else (0,)  # None is the negative prompt
        rows = len(self._parts) * batch
        context = torch.randn(rows, model.tokens, model.context, generator=random)
        self._conditioning = {"context": context.to(device, dtype)}
        if model.label is not None:
            self._conditioning["y"] = torch.randn(rows, model.label, generator=random).to(device, dtype)
        if model.guidance is not None:
            self._conditioning["guidance"] = torch.full((rows,), model.guidance, device=device)
        self._run: Run | None = None

    @torch.no_grad()
    def plain(self, begin: Begin = _nothing) -> Tensor:
        """The final latents of k-diffusion's own loop, ``[B, C, h, w]``."""
        begin()
        function = getattr(k_diffusion.sampling, self._sampler.name)
        return function(self._guided, self._x, self.sigmas, disable=True, **self._sampler_options())

    @torch.no_grad()
    def asyndm(self, begin: Begin = _nothing) -> Tensor:
        """The final latents of our loop, ``[B, C, h, w]``."""

        @contextmanager
        def rehearsal() -> Iterator[None]:
            yield
            begin()

        if not self._by_level:  # else an ordinary pass comes first
            begin()
        denoiser = self._denoiser
        conversions = (on(denoiser.sigmas, one) for one in (denoiser.sigma_to_t, denoiser.t_to_sigma))
        host = Host(
            model=self._model,
            descents=[Descent(Schedule(self.sigmas[:-1], *conversions), list(self.sigmas))],
            predict=lambda x, sigma: self._guided(x, sigma * x.new_ones(len(x))),
            step=lambda: 0,
            unconditional=lambda: self._x,
            randn_like=torch.randn_like,
            callback=None,
            progress=iter,
            rehearsal=rehearsal,
            steady=lambda: True,
        )
        prompt = " ".join(self._words)
        targets = PromptTargets(parse_targets(self._settings.targets), [[[(0, prompt)]]] * self._batch, _tokenize)
        with Run(host, self._settings, targets, self._x) as self._run:
            try:
                return self._run.sample(self._sampler, self._x, **self._sampler_options())
            finally:
                self._run = None

    def _sampler_options(self) -> dict[str, Any]:
        if self._sampler.noise != "Brownian":
            return dict(self._options)
        low, high = self.sigmas[-2], self.sigmas[0]
        noise = k_diffusion.sampling.BrownianTreeNoiseSampler(self._x, low, high, seed=[0] * self._batch)
        return {**self._options, "noise_sampler": noise}

    def _guided(self, x: Tensor, sigma: Tensor) -> Tensor:
        parts = len(self._parts)
        both, sigmas = (x, sigma) if parts == 1 else (torch.cat([x] * parts), torch.cat([sigma] * parts))
        if self._run is None:
            out = self._denoiser(both, sigmas, **self._conditioning)
        else:
            rows = [(image, part) for part in self._parts for image in range(self._batch)]
            with self._run.rows(rows) as here, scalings(self._denoiser, here):
                out = self._denoiser(both, sigmas, **self._conditioning)
        if parts == 1:
            return out
        conditional, unconditional = out.chunk(2)
        return unconditional + (conditional - unconditional) * CFG


def _tokenize(text: str) -> list[Token]:
    """The tokens of ``text``: one a word, after the start token."""
    return [Token(word, at, True) for at, word in enumerate(text.split(), start=1)]
