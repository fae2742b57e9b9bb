"""The rows of each call of the host's UNet, named by a wrapper on a patched clone of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from modules import prompt_parser
from torch import Tensor

from ...errors import Unsupported
from ...models.family import Row
from ...models.parts.patching import replaced
from ...run.run import Run

WRAPPER = "model_function_wrapper"
APART = "another extension takes the picture apart{name}; switch it or AsynDM off"
TILING = ("lib_multidiffusion",)
"""Packages whose wrappers give the model parts of the picture: Forge's MultiDiffusion."""


def check_wrapper(sd_model: Any) -> None:
    """Raise :class:`Unsupported` if no run can work with another extension's wrapper."""
    wrapper = sd_model.forge_objects.unet.model_options.get(WRAPPER)
    package = type(wrapper).__module__.partition(".")[0]
    if package in TILING:
        raise Unsupported(APART.format(name=f" ({type(wrapper).__name__})"))


class UNetRows:
    """Tells a run what the rows of a call of the UNet are.

    Forge sends the batch through the UNet once for the negative prompt and once for every ``AND``
    part, several of them joined to one call as there is memory and as their lengths allow; the
    parts come last to first. Another extension's guidance may ask for some again in the same
    evaluation.
    """

    def __init__(self, run: Run, model: Any, extra_args: dict[str, Any]):
        """``model``: the host's CFG denoiser.

        ``extra_args``: what it is called with, which a refiner replaces.
        """
        self._run, self._model, self._extra_args = run, model, extra_args
        self._conditional = 0

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Inside the ``with`` the parts count from the last one in every evaluation."""
        original = self._model.forward

        def forward(*args: Any, **kwargs: Any) -> Tensor:
            self._conditional = 0
            return original(*args, **kwargs)

        with replaced(self._model, "forward", forward):
            yield

    @contextmanager
    def named(self, sd_model: Any) -> Iterator[None]:
        """Inside the ``with`` the engine's UNet is a clone whose wrapper names the rows."""
        unet = sd_model.forge_objects.unet
        clone = unet.clone()
        clone.set_model_unet_function_wrapper(self._wrapper(unet.model_options.get(WRAPPER)))
        sd_model.forge_objects.unet = clone
        try:
            yield
        finally:
            # The host's list of loaded models may keep the clone.
            clone.model_options = unet.model_options
            if sd_model.forge_objects.unet is clone:
                sd_model.forge_objects.unet = unet

    def _wrapper(self, previous: Callable[..., Tensor] | None) -> Callable[..., Tensor]:
        """``previous``: another extension's wrapper, which goes on working around the model."""

        def wrapper(apply_model: Callable[..., Tensor], call: dict[str, Any]) -> Tensor:
            rows = self._rows(call["cond_or_uncond"], len(call["input"]))

            def apply(x: Tensor, t: Tensor, **c: Any) -> Tensor:
                if x.shape != call["input"].shape:
                    raise Unsupported(APART.format(name=""))
                with self._run.rows(rows, self._tokens(call["c"]["c_crossattn"])):
                    return apply_model(x, t, **c)

            if previous is not None:
                return previous(apply, call)
            return apply(call["input"], call["timestep"], **call["c"])

        return wrapper

    def _rows(self, cond_or_uncond: list[int], count: int) -> list[Row]:
        images = range(count // len(cond_or_uncond))
        rows: list[Row] = []
        # Where the prompts have different numbers of parts, the host takes the least.
        parts = min(map(len, self._extra_args["cond"].batch))
        for unconditional in cond_or_uncond:
            part = None if unconditional else (parts - 1 - self._conditional) % parts
            self._conditional += not unconditional
            rows += [(image, part) for image in images]
        return rows

    def _tokens(self, context: Tensor) -> int:
        """The length of the prompts' own context, which the host repeats to match a longer one."""
        _, text = prompt_parser.reconstruct_multicond_batch(self._extra_args["cond"], self._model.step)
        if not isinstance(text, dict):
            return text.shape[1]
        # By an option a host lengthens an SDXL prompt with empty chunks instead.
        return context.shape[1] if self._model.padded_cond_uncond else text["crossattn"].shape[1]
