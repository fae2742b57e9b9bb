"""One call of a host's sampler function, and what it changes in the host while it lasts."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import k_diffusion.sampling
import torch
from modules import prompt_parser, sd_samplers_cfg_denoiser, shared
from modules.sd_samplers_cfg_denoiser import CFGDenoiser
from torch import Tensor

from ...clock.schedule import alpha, on
from ...errors import TakenApart, Unsupported
from ...models.family import Row
from ...models.parts.patching import replaced
from ...run.host import Host
from ...run.model_call import Told
from ...run.run import Run
from ...samplers.table import SAMPLERS
from ...samplers.timesteps import denoised_of
from ..common.attaching import ReadTargets, SamplerCall
from ..common.flows import check_kind, flow_maps
from ..common.guidance import guide_as_the_host
from ..common.inpainting import blending
from ..common.noise_levels import Maps, levels_of
from ..common.others_counts import functions_of
from ..common.pieces import Piece, Pieces, encodings
from ..common.rehearsal import rehearsal, rewinding
from ..common.row_slices import RowSlices
from .denoising import Denoising
from .models import check_model, flow_of
from .tiled_diffusion import regions

UNKNOWN = (
    "another extension evaluated the model with pictures that AsynDM does not know; "
    "they had one noise level for all"
)


class Call:
    """A call of the host's sampler function for ``p``.

    ``host``, ``options``, ``rewind``: see :class:`attaching.Call`.
    """

    def __init__(self, p: Any, read_targets: ReadTargets, call: SamplerCall):
        network = shared.sd_model.model.diffusion_model
        self.rewind = rewinding(p, call.model, call.x.device)
        name, model, x, options = call.name, call.model, call.x, dict(call.options)
        self._p, self._read_targets, self._model = p, read_targets, model
        _check_denoiser(model)
        self._extra_args = options.pop("extra_args")
        callback, disable = options.pop("callback", None), options.pop("disable", None)
        # The timestep samplers work on eps, from which the host makes its previews.
        self._previews_noise = "timesteps" in options
        check_kind(SAMPLERS[name], flow_of(p.sd_model) is not None)
        maps = functools.partial(_maps, model.inner_model, flow_of(p.sd_model))
        levels = levels_of(SAMPLERS[name], model, x, options, maps, k_diffusion.sampling)
        guide_as_the_host(SAMPLERS[name], model)
        self.options, self._unit, self._input = levels.options, levels.unit, levels.input
        self._rows = RowSlices(_rows(self._extra_args["cond"], model))
        self.host = Host(
            model=network,
            descents=levels.descents,
            predict=self._predict,
            step=lambda: model.step,
            unconditional=lambda: model.last_noise_uncond,
            # The host hangs its seeded random numbers into k-diffusion's module.
            randn_like=lambda x: k_diffusion.sampling.torch.randn_like(x),
            callback=callback,
            progress=lambda steps: k_diffusion.sampling.trange(len(steps), disable=disable),
            rehearsal=functools.partial(rehearsal, p, model, x.device, functions_of(network)),
            steady=_steady,
        )

    def _predict(self, x: Tensor, sigma: Tensor) -> Tensor:
        self._rows.begin()
        self._told = self._input(sigma)
        return self._model(x, self._told, **self._extra_args)

    @contextmanager
    def patched(self, run: Run) -> Iterator[None]:
        """The host's denoiser with a noise level per pixel, inside the ``with`` only."""
        model, denoising = self._model, ExitStack()
        with ExitStack() as stack:
            stack.callback(denoising.close)
            denoising.enter_context(self._denoising(run))
            moved = functools.partial(self._moved, denoising, run, model.update_inner_model)
            stack.enter_context(replaced(model, "update_inner_model", moved))
            if self._previews_noise:
                preview = functools.partial(_pred_x0, run, model.get_pred_x0)
                stack.enter_context(replaced(model, "get_pred_x0", preview))
            stack.enter_context(blending(self._p.scripts, run, self._unit))
            stack.enter_context(_callbacks(self._rows, self._text))
            yield

    def _moved(self, denoising: ExitStack, run: Run, update_inner_model: Callable[[], None]) -> None:
        """Go on with the refiner that the host has loaded: all its parts are others."""
        denoising.close()
        run.leave()
        update_inner_model()
        check_model(shared.sd_model)
        run.move(shared.sd_model.model.diffusion_model, self._read_targets())
        denoising.enter_context(self._denoising(run))

    def _denoising(self, run: Run) -> AbstractContextManager[None]:
        pieces = functools.partial(Pieces, regions(self._p), [len(parts) for parts in self._extra_args["cond"].batch])
        whole = functools.partial(self._whole, run)
        return Denoising(run, self._model.inner_model, shared.sd_model, whole, pieces).patched()

    def _text(self) -> Tensor:
        """The conditional rows' prompts of the present evaluation, as the host encodes them."""
        _, text = prompt_parser.reconstruct_multicond_batch(self._extra_args["cond"], self._model.step)
        return encodings(text)

    def _whole(self, run: Run, input: Tensor, sigma: Tensor) -> Piece:
        """What a call of the denoiser with ``input`` holds; no rows if that is not known."""
        if run.evaluating is None:
            return Piece()
        rows = self._rows.of(input)
        if rows is not None and input.shape[-2:] != run.evaluating.sigma.shape[-2:]:
            if any(part is not None for _, part in rows):  # the host's own call
                raise TakenApart
            rows = None
        if rows is None:
            run.report(UNKNOWN)
            return Piece()
        return Piece(rows, Told(sigma / self._told[0], self._previews_noise) if self._rows.retold else None)


def _check_denoiser(model: Any) -> None:
    """Raise :class:`Unsupported` if another extension guides in the place of the host's own class.

    Nobody knows which images its calls of the model hold, nor what it computes of the one noise
    level that it is given.
    """
    guide = type(model).forward
    if guide.__module__ != CFGDenoiser.__module__:
        raise Unsupported(
            f"another extension ({guide.__module__}) guides the model in a way of its own, by one noise level "
            "for the whole picture; switch it or AsynDM off"
        )


def _maps(denoiser: Any, flow: Any) -> Maps:
    if flow is not None:  # whose model is told timesteps that the denoiser knows nothing of
        return flow_maps(flow)
    return Maps(on(denoiser.log_sigmas, denoiser.sigma_to_t), on(denoiser.log_sigmas, denoiser.t_to_sigma))


def _steady() -> bool:
    """Whether linear layers are PyTorch's own, or put LoRAs into their weights before they go by
    them.

    By an option a LoRA acts beside the weights, where nothing shows that its weight has changed.
    """
    forward, functional = torch.nn.Linear.forward.__module__, getattr(shared.opts, "lora_functional", False)
    return forward.startswith("torch.") or (forward == "networks" and not functional)


def _rows(cond: Any, model: Any) -> list[Row]:
    """The rows of the host's batch: conditional ones image by image, then unconditional ones."""
    images = range(len(cond.batch))
    conditional = [(image, part) for image in images for part in range(len(cond.batch[image]))]
    # InstructPix2Pix guides by the start picture too: unconditional rows with it and without it.
    edit = shared.sd_model.cond_stage_key == "edit" and model.image_cfg_scale not in (None, 1.0)
    return conditional + [(image, None) for image in images] * (2 if edit else 1)


@contextmanager
def _callbacks(slices: RowSlices, text: Callable[[], Tensor]) -> Iterator[None]:
    """What other extensions do in the host's callbacks is known as theirs.

    They may call the model, change the noise levels that it is told, and put the rows of the batch
    in another order. ``text()``: the prompts as the host has them.
    """
    module = sd_samplers_cfg_denoiser
    with ExitStack() as stack:
        before = functools.partial(_before_guidance, slices, text, module.cfg_denoiser_callback)
        stack.enter_context(replaced(module, "cfg_denoiser_callback", before))
        for name in ("cfg_denoised_callback", "cfg_after_cfg_callback"):
            stack.enter_context(replaced(module, name, functools.partial(_as_others, slices, getattr(module, name))))
        yield


def _before_guidance(
    slices: RowSlices, text: Callable[[], Tensor], original: Callable[[Any], None], params: Any
) -> None:
    told, x = params.sigma, params.x
    # Inference tensors do not count how often they are written to.
    own = told.clone() if told.is_inference() else told._version
    version = None if x.is_inference() else x._version
    with slices.others(x):
        original(params)
    written = not torch.equal(own, told) if told.is_inference() else told._version != own
    slices.retold = written or params.sigma is not told
    if params.x is not x or version is None or x._version != version:
        slices.reorder(params.x, encodings(params.text_cond), text())


def _as_others(slices: RowSlices, original: Callable[[Any], None], params: Any) -> None:
    with slices.others():
        original(params)


def _pred_x0(run: Run, original: Callable[..., Tensor], x_in: Tensor, x_out: Tensor, timestep: Tensor) -> Tensor:
    """The timestep samplers' preview, which an interrupt returns, at each pixel's own level."""
    own = original(x_in, x_out, timestep)
    here = run.evaluating
    if here is None or len(x_in) != len(here.lagging):
        return own
    return torch.where(here.lagging, denoised_of(x_in, x_out, alpha(here.sigma)).to(own.dtype), own)
