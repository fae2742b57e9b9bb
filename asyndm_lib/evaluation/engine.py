"""Pictures of many prompts at once: the embedded host, with another prompt for each picture of a
batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import group_norm, layer_norm

from ..clock.schedule import Schedule
from ..errors import Unsupported
from ..hosts.standalone.embedded import Embedded, Request
from ..hosts.standalone.ldm_attention import CrossAttention, scaled_dot_product
from ..hosts.standalone.ldm_checkpoint import Checkpoint
from ..hosts.standalone.text_encoders import CHUNK, tokenize
from ..models.family import Row
from ..models.parts.patching import replaced
from ..prompt.candidates import named_or_candidates
from ..prompt.prompt_targets import PromptTargets
from ..prompt.target_list import parse_targets
from ..run.host import Descent, Host
from ..run.run import Run
from ..run.step import Observer
from ..samplers.ddim import ddim
from ..settings.settings import Settings
from .methods import Method, Way
from .peers.attend_and_excite import Excitement, excited
from .peers.cfg import Guidance
from .peers.s_cfg import SemanticGuidance
from .peers.seg import SmoothedGuidance
from .peers.z_sampling import zigzag
from .prompts import Prompt
from .regions import controlled
from .text_level import text_at_mean

WALKS: dict[str | None, Callable[..., Tensor]] = {"Z-Sampling": zigzag, "Attend-and-Excite": excited}
"""The peers that walk the steps of DDIM in their own way."""

FORMS_OF_DDIM = ("CFG++", *WALKS)

DECODED = 64
"""Pictures decoded at once."""


class Noise:
    """The random numbers of a batch, each picture's from its own seed, kept for all methods to
    draw again.

    They are those that :class:`hosts.standalone.embedded.Embedded` draws for the same seeds.
    """

    def __init__(self, seeds: Sequence[int], shape: Sequence[int], device: torch.device):
        """``shape``: of one latent."""
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._shape, self._device = tuple(shape), device
        self._drawn: list[Tensor] = []
        self._next = 0

    def begin(self) -> None:
        """Draw from the first number on."""
        self._next = 0

    def like(self, x: Tensor) -> Tensor:
        """Standard normal numbers in the shape of ``x [B, …]``."""
        if self._next == len(self._drawn):
            draw = torch.stack([torch.randn(self._shape, generator=g) for g in self._generators])
            self._drawn.append(draw.to(self._device))
        self._next += 1
        return self._drawn[self._next - 1].to(x)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """What is drawn inside is drawn again after."""
        before = self._next
        yield
        self._next = before


class Batches(Embedded):
    """Makes pictures of many prompts at once."""

    def __init__(self, checkpoint: Checkpoint):
        super().__init__(checkpoint)
        self._fast = checkpoint.device.type == "cuda"

    @property
    def device(self) -> torch.device:
        return self._model.device

    def sigmas_of(self, timesteps: Tensor) -> Tensor:
        """The sigmas of the model's ``timesteps`` (any shape)."""
        return self._levels.t_to_sigma(timesteps)

    def noise(self, seeds: Sequence[int], width: int, height: int) -> Noise:
        """One picture's random numbers for each seed."""
        model = self._model
        return Noise(seeds, (model.channels, height // model.shrink, width // model.shrink), model.device)

    @torch.no_grad()
    def make(
        self, prompts: Sequence[Prompt], noise: Noise, way: Way, method: Method, observers: Sequence[Observer] = ()
    ) -> Tensor:
        """The final latents ``[B, C, h, w]``, one of each of ``prompts``, by ``method`` on the
        sampler of ``way``.

        Raises :class:`Unsupported` for a prompt of more than one chunk, or a peer that does not go
        with the sampler.
        """
        model, batch, way = self._model, len(prompts), method.way(way)
        texts = self._conditioning([prompt.text for prompt in prompts])
        noise.begin()
        x = noise.like(texts["context"])
        label = "DDIM CFG++" if method.peer == "CFG++" else way.sampler
        if method.peer in FORMS_OF_DDIM and self.sampler(way.sampler)[0].function is not ddim:
            raise Unsupported(f"{method.peer} is a form of DDIM; it does not go with {way.sampler}")
        sampler, _ = self.sampler(label)
        scaled = sampler.levels == "timesteps"
        (sigmas,), options = self._ways(Request("", "", (), label, way.schedule, way.steps, way.cfg, 0, 0, way.eta))
        if not scaled:
            x = x * sigmas[0]
        # As the WebUI scales it: a CFG++ of 0.4 does what CFG does at 5.
        divisor = sampler.cfg_divisor if method.peer == "CFG++" else None
        settings = method.settings
        words = self._targets(prompts, settings)
        guidance = _guidance(method.peer, way.cfg / (divisor or 1.0), words, self.device)
        empty = self._conditioning([""] * batch)
        copies = {
            name: torch.cat([value if conditional else empty[name] for conditional in guidance.copies])
            for name, value in texts.items()
        }
        names: list[Row] = [(image, 0 if read else None) for read in guidance.read for image in range(batch)]
        last: list[Tensor] = []
        running: list[Run] = []

        def predict(x: Tensor, sigma: Tensor) -> Tensor:
            guided = self._eps if scaled else self.denoised

            def conditional(x: Tensor) -> Tensor:
                with running[0].rows([(image, None) for image in range(batch)]) as here:  # its maps are not the run's
                    return guided(x, sigma, texts, here)

            x = guidance.prepared(x, conditional)
            rows = torch.cat([x] * len(guidance.copies))
            with ExitStack() as stack:
                here = stack.enter_context(running[0].rows(names))
                if method.text_at_mean:
                    stack.enter_context(text_at_mean(model.diffusion_model, here.sigma, sigma))
                outputs = guided(rows, sigma, copies, here).chunk(len(guidance.copies))
            last[:] = [outputs[1]]
            return guidance.combine(outputs)

        maps = self._levels.sigma_to_t, self._levels.t_to_sigma
        host = Host(
            model=model.diffusion_model,
            descents=[Descent(Schedule(sigmas[:-1], *maps), list(sigmas))],
            predict=predict,
            step=lambda: 0,
            unconditional=lambda: last[0],
            randn_like=noise.like,
            callback=None,
            progress=iter,
            rehearsal=noise.kept,
            steady=lambda: True,
        )
        walk: Callable[..., Tensor] = sampler
        if method.peer in WALKS:
            walk = partial(WALKS[method.peer], guidance=guidance)
        masks = partial(controlled, method.control)
        run = Run(host, settings, None if settings.whole_picture else words, x, observers, masks)
        running.append(run)
        try:
            with ExitStack() as stack:
                stack.enter_context(self.fast_layers())
                stack.enter_context(guidance.attached(model.diffusion_model))
                stack.enter_context(run)
                return run.sample(walk, x, **options)
        finally:
            running.clear()  # predict would keep the run until the garbage collector comes

    def fast_layers(self) -> AbstractContextManager[None]:
        """On a GPU the model's layers have faster forms inside the ``with``."""
        return _fast_layers(self._model.diffusion_model) if self._fast else nullcontext()

    @torch.no_grad()
    def pictures(self, latents: Tensor) -> Iterator[Tensor]:
        """``[B, C, h, w]`` → pictures in [-1, 1], ``[n, 3, H, W]``, some at a time."""
        for part in latents.split(DECODED):
            with torch.autocast("cuda", torch.float16) if self._fast else nullcontext():
                yield self._model.autoencoder(part / self._model.scale).float().clamp(-1, 1)

    def problem(self, prompt: Prompt) -> str | None:
        """Why there can be no picture of the prompt with AsynDM: nothing to target, a target that
        is not in it, or too many words."""
        try:
            self._conditioning([prompt.text])
        except Unsupported as error:
            return str(error)
        targets = self._targets([prompt], Settings())
        if not targets.targets:
            return "no word of it names a thing"
        missing = ", ".join(f"{str(target)!r:.40}" for target in targets.missing())
        return f"not in it: {missing}" if missing else None

    def _conditioning(self, texts: Sequence[str]) -> dict[str, Tensor]:
        distinct = list(dict.fromkeys(texts))
        encoded = self.conditioning(distinct)
        if encoded["context"].shape[1] > CHUNK + 2:
            raise Unsupported(f"a prompt has more than {CHUNK} tokens")
        rows = torch.tensor([distinct.index(text) for text in texts], device=self.device)
        return {name: value[rows] for name, value in encoded.items()}

    def _targets(self, prompts: Sequence[Prompt], settings: Settings) -> PromptTargets:
        named = [parse_targets(prompt.targets) for prompt in prompts]
        texts = [[[(0, prompt.text)]] for prompt in prompts]
        return named_or_candidates(named, texts, lambda text: tokenize(self._model.text, text))


def _guidance(peer: str | None, scale: float, words: PromptTargets, device: torch.device) -> Guidance:
    """The guidance of ``peer``. ``words`` are the targets, or the candidates where none are named:
    Attend-and-Excite's subjects."""
    if peer == "Attend-and-Excite":
        return Excitement(scale, partial(_subjects, words, device))
    kind: Callable[[float], Guidance] = {"SEG": SmoothedGuidance, "S-CFG": SemanticGuidance}.get(peer, Guidance)
    return kind(scale)


def _subjects(words: PromptTargets, device: torch.device, context: int) -> Tensor:
    """What each token of each prompt counts for each word, ``[B, context, T]``."""
    return torch.stack([words.weights(image, 0, 0, context, device) for image in range(len(words.prompts))])


@contextmanager
def _fast_layers(model: nn.Module) -> Iterator[None]:
    """ldm's attention by PyTorch's fused kernel, which keeps no maps, and its norms in half
    precision.

    The projections are called as ever. Norms in single precision take a third of the time of such
    a small model.
    """
    forwards = {CrossAttention: scaled_dot_product, nn.GroupNorm: _group_norm, nn.LayerNorm: _layer_norm}
    with ExitStack() as stack:
        for module in model.modules():
            for kind, forward in forwards.items():
                if isinstance(module, kind):
                    stack.enter_context(replaced(module, "forward", partial(forward, module)))
        yield


def _group_norm(self: nn.GroupNorm, x: Tensor) -> Tensor:
    with torch.autocast(x.device.type, enabled=False):
        return group_norm(x, self.num_groups, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps)


def _layer_norm(self: nn.LayerNorm, x: Tensor) -> Tensor:
    with torch.autocast(x.device.type, enabled=False):
        weight, bias = (None if own is None else own.to(x.dtype) for own in (self.weight, self.bias))
        return layer_norm(x, self.normalized_shape, weight, bias, self.eps)
