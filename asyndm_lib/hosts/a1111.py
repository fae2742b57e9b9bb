"""AUTOMATIC1111's WebUI: puts a run in the place of one call of the host's sampler function.

The host keeps its samplers' entry points, its CFG denoiser, its callbacks and its random numbers; what
changes is the update formula between two model calls, and the noise level that each pixel has in one.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import k_diffusion.sampling
import numpy as np
import torch
from modules import prompt_parser, sd_hijack_open_clip, sd_unet, shared
from torch import Tensor

from ..errors import Unsupported
from ..host import Host
from ..prompts import PromptTargets, Scheduled
from ..run import Rows, Run
from ..samplers import LABELS, SAMPLERS
from ..schedule import NoiseLevels, Schedule, alpha
from ..settings import Settings
from ..targets import parse_targets
from ..tokens import Token
from .per_pixel import eps_of_v, replaced, scalings

Report = Callable[[str], None]
"""Shows the person one message."""


def check(p: Any) -> None:
    """Raise :class:`Unsupported` if the sampler or the model of ``p``'s coming sampling call cannot run on maps."""
    if _function_name(p.sampler) not in SAMPLERS:
        name = (p.hr_sampler_name if getattr(p, "is_hr_pass", False) else None) or p.sampler_name
        raise Unsupported(f"the sampler {name!r} is not supported yet; use {', '.join(LABELS)}")
    model = shared.sd_model
    if getattr(p, "refiner_checkpoint_info", None) not in (None, model.sd_checkpoint_info):
        raise Unsupported("a refiner is not supported yet; set the refiner's checkpoint to None")
    if sd_unet.current_unet is not None:
        label = sd_unet.current_unet.option.label
        raise Unsupported(f"the replaced UNet {label!r} is not supported; set SD Unet to None")
    if getattr(model, "is_sd3", False) or getattr(model, "is_sdxl", False):
        raise Unsupported("this kind of model is not supported yet; use a Stable Diffusion 1.x or 2.x checkpoint")
    if model.cond_stage_key == "edit" or model.model.conditioning_key != "crossattn":
        raise Unsupported("inpainting, depth, unCLIP and edit checkpoints are not supported yet; use another one")


def _function_name(sampler: Any) -> str:
    return getattr(sampler.func, "__name__", "")


def prompt_targets(p: Any, settings: Settings) -> PromptTargets:
    """The target words in the prompts of the coming sampling call of ``p`` (a ``StableDiffusionProcessing``)."""
    hires = getattr(p, "is_hr_pass", False)
    prompts = p.hr_prompts if hires else p.prompts
    steps = {"base_steps": p.firstpass_steps}
    if hires:
        steps["hires_steps"] = p.sampler.config.total_steps(p.hr_second_pass_steps or p.steps)
    indexes, flat, _ = prompt_parser.get_multicond_prompt_list(prompts)
    schedules = prompt_parser.get_learned_conditioning_prompt_schedules(
        flat, **steps, use_old_scheduling=shared.opts.use_old_scheduling
    )
    parts: list[list[Scheduled]] = [[schedules[index] for index, _ in parts] for parts in indexes]
    return PromptTargets(parse_targets(settings.targets), parts, tokenizer(shared.sd_model))


def tokenizer(sd_model: Any) -> Callable[[str], list[Token]]:
    """The model's own tokenization: emphasis, ``BREAK``, chunks and textual inversions as the host encodes them."""
    conditioner = sd_model.cond_stage_model
    text = next(e for e in getattr(conditioner, "embedders", [conditioner]) if hasattr(e, "process_texts"))
    ending = {index for word, index in _vocabulary(text).items() if word.endswith("</w>")}

    def tokenize(line: str) -> list[Token]:
        (chunks,), _ = text.process_texts([line])
        return [token for number, chunk in enumerate(chunks) for token in _chunk(chunk, number)]

    def _chunk(chunk: Any, number: int) -> Iterator[Token]:
        start = number * len(chunk.tokens)
        inversions = {
            1 + fix.offset + n: (fix.embedding.name, n == int(fix.embedding.vectors) - 1)
            for fix in chunk.fixes
            for n in range(int(fix.embedding.vectors))
        }
        for at, key in enumerate(chunk.tokens[1:], start=1):
            if at in inversions:
                name, last = inversions[at]
                yield Token(name, start + at, last)
            elif key == text.id_end:
                return
            else:
                yield Token(key, start + at, key in ending)

    return tokenize


def _vocabulary(text: Any) -> dict[str, int]:
    """Token → id. OpenCLIP's tokenizer (SD 2.x) stands in the host's module, CLIP's beside the text encoder."""
    if hasattr(text, "tokenizer"):
        return text.tokenizer.get_vocab()
    return sd_hijack_open_clip.tokenizer.encoder


def attach(
    p: Any, settings: Settings, targets: PromptTargets | None, report: Report, refused: Callable[[Unsupported], None]
) -> None:
    """Have the coming sampling call of ``p`` run on sigma maps, once.

    ``p`` has passed :func:`check`. ``targets``: None for the whole picture. What shows only at the call goes
    to ``refused``, and the host samples by itself.
    """
    sampler = p.sampler
    detach(sampler)
    original, name = sampler.func, _function_name(sampler)

    # The host reads the signature to decide which options to pass; wraps() keeps it.
    @functools.wraps(original)
    def sample(model: Any, x: Tensor, **options: Any) -> Tensor:
        detach(sampler)
        if len(options.get("sigmas", options.get("timesteps"))) < 2:
            return original(model, x, **options)  # nothing to sample
        try:
            call = _Call(p, model, x, dict(options))
            run = Run(call.host, settings, targets, x)
        except Unsupported as error:
            refused(error)
            return original(model, x, **options)
        with run, call.patched(run):
            x = run.sample(SAMPLERS[name], x, **call.options)
        for problem in sorted(run.problems):
            report(problem)
        return x

    sample.asyndm_original = original
    sampler.func = sample


def detach(sampler: Any) -> None:
    """Give ``sampler`` its own function back; it may be shared by the batches of an img2img job."""
    if hasattr(sampler, "func"):
        sampler.func = getattr(sampler.func, "asyndm_original", sampler.func)


class _Call:
    """One call of a host's sampler function ``(model, x, sigmas= | timesteps=, …)``.

    ``options``: what is left of the host's options for the sampler itself.
    """

    def __init__(self, p: Any, model: Any, x: Tensor, options: dict[str, Any]):
        self._p, self._model = p, model
        self._extra_args = options.pop("extra_args")
        callback, disable = options.pop("callback", None), options.pop("disable", None)
        self._ones = x.new_ones(len(x))
        # The timestep samplers work on eps, from which the host makes its previews.
        self._previews_noise = "timesteps" in options
        kind = self._discrete if self._previews_noise else self._continuous
        schedule, scalars, predict, self.options = kind(x, options)
        self.host = Host(
            unet=shared.sd_model.model.diffusion_model,
            schedule=schedule,
            scalars=scalars,
            predict=predict,
            rows=_rows(self._extra_args["cond"]),
            step=lambda: model.step,
            # The host hangs its seeded random numbers into k-diffusion's module.
            randn_like=lambda x: k_diffusion.sampling.torch.randn_like(x),
            callback=callback,
            progress=lambda steps: k_diffusion.sampling.trange(len(steps), disable=disable),
            rehearsal=self._rehearsal,
        )

    def _continuous(self, x: Tensor, options: dict[str, Any]) -> tuple:
        """k-diffusion samplers: sigmas, the last one being what all pixels step to together."""
        sigmas = options.pop("sigmas")
        if not (sigmas[:-1] > 0).all() or not (sigmas.diff() <= 0).all():
            raise Unsupported("this schedule does not descend from step to step; choose another schedule type")
        maps = self._model.inner_model
        schedule = Schedule(sigmas[:-1], _on(maps.log_sigmas, maps.sigma_to_t), _on(maps.log_sigmas, maps.t_to_sigma))

        def predict(x: Tensor, sigma: Tensor) -> Tensor:
            return self._model(x, sigma * self._ones, **self._extra_args)

        return schedule, list(sigmas), predict, options

    def _discrete(self, x: Tensor, options: dict[str, Any]) -> tuple:
        """The host's own DDIM: ascending timesteps, of which it evaluates all but the first, and steps to that."""
        timesteps = options.pop("timesteps").cpu()
        eta = options["eta"]
        alphas_cumprod = self._model.inner_model.inner_model.alphas_cumprod
        levels = NoiseLevels(alphas_cumprod.double().cpu())
        sigmas = levels.t_to_sigma(timesteps.double()).flip(0)
        schedule = Schedule(sigmas[:-1], levels.sigma_to_t, levels.t_to_sigma)

        # The host's own scalars, rounded as it rounds them (modules/sd_samplers_timesteps_impl.py).
        alphas = alphas_cumprod[timesteps.to(alphas_cumprod.device)]
        before = alphas[:-1].double().cpu().numpy()
        here = alphas[1:].cpu()
        added = eta * np.sqrt((1 - before) / (1 - here) * (1 - here / before))
        scale = x.new_ones(1, 1, 1, 1)
        options["alphas"] = [a.item() * scale for a in alphas.flip(0)]
        options["added"] = [a.item() * scale for a in torch.as_tensor(added).flip(0)]

        def predict(x: Tensor, sigma: Tensor) -> Tensor:
            # DDIM's own timesteps are whole numbers; the way over sigma leaves them only in the last bits.
            return self._model(x, round(levels.sigma_to_t(sigma).item()) * self._ones, **self._extra_args)

        return schedule, list(sigmas), predict, options

    @contextmanager
    def patched(self, run: Run) -> Iterator[None]:
        """The host's denoiser with a noise level per pixel, inside the ``with`` only."""
        denoiser, model = self._model.inner_model, self._model
        original = denoiser.forward

        def forward(input: Tensor, sigma: Tensor, **kwargs: Any) -> Tensor:
            with run.rows(len(input)) as here, scalings(denoiser, here), _velocity(denoiser, here):
                return original(input, sigma, **kwargs)

        with ExitStack() as stack:
            stack.enter_context(replaced(denoiser, "forward", forward))
            if self._previews_noise:
                preview = functools.partial(_pred_x0, run, model.get_pred_x0)
                stack.enter_context(replaced(model, "get_pred_x0", preview))
            yield

    @contextmanager
    def _rehearsal(self) -> Iterator[None]:
        """A pass that leaves the random numbers and the model calls counted by the host as they were."""
        rng, step = self._p.rng, self._model.step
        states = [_generator_state(generator) for generator in rng.generators]
        yield
        self._model.step = step
        for restore in states:
            restore()


def _rows(cond: Any) -> list[tuple[int, int | None]]:
    """The rows of the host's batch: conditional ones image by image, then the unconditional ones."""
    images = range(len(cond.batch))
    return [(image, part) for image in images for part in range(len(cond.batch[image]))] + [(i, None) for i in images]


def _on(buffer: Tensor, map: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """``map`` of the host's denoiser, for any number of values anywhere."""
    return lambda values: map(values.to(buffer.device, buffer.dtype).flatten()).reshape(values.shape)


@contextmanager
def _velocity(denoiser: Any, here: Rows | None) -> Iterator[None]:
    """The timestep samplers' v → eps at each pixel's own noise level."""
    if here is None or not hasattr(denoiser, "predict_eps_from_z_and_v"):
        yield
        return
    original = denoiser.predict_eps_from_z_and_v

    def predict_eps_from_z_and_v(x: Tensor, timestep: Tensor, v: Tensor) -> Tensor:
        return torch.where(here.lagging, eps_of_v(x, v, here.sigma).to(v.dtype), original(x, timestep, v))

    with replaced(denoiser, "predict_eps_from_z_and_v", predict_eps_from_z_and_v):
        yield


def _pred_x0(run: Run, original: Callable[..., Tensor], x_in: Tensor, x_out: Tensor, timestep: Tensor) -> Tensor:
    """The preview of the timestep samplers, which an interrupt also returns, at each pixel's own noise level."""
    own = original(x_in, x_out, timestep)
    here = run.evaluating
    if here is None or len(x_in) != len(here.lagging):
        return own
    a = alpha(here.sigma)
    return torch.where(here.lagging, ((x_in - (1 - a).sqrt() * x_out) / a.sqrt()).to(own.dtype), own)


def _generator_state(generator: Any) -> Callable[[], None]:
    if isinstance(generator, torch.Generator):
        return functools.partial(generator.set_state, generator.get_state())
    return functools.partial(generator.__dict__.update, copy.deepcopy(generator.__dict__))
