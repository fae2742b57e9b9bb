"""The rows of each call of the host's UNet, named by a wrapper on a patched clone of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial, update_wrapper
from typing import Any

import torch
from modules import prompt_parser, sd_samplers_cfg_denoiser
from torch import Tensor

from ...clock.cells import Box, box_of
from ...errors import TakenApart
from ...models.family import Row
from ...models.parts.patching import replaced
from ...run.model_call import Rows, Told, of_rows
from ...run.run import Run
from ..common.pieces import Piece, Pieces
from ..common.row_slices import images_of, same

WRAPPER = "model_function_wrapper"
OTHERS = ("conditioning_modifiers", "sampler_pre_cfg_function", "sampler_cfg_function", "sampler_post_cfg_function")
"""The options of a UNet with functions of other extensions, which may call the model."""
UNKNOWN = "another extension evaluates the model with pictures that AsynDM does not know; switch it or AsynDM off"


class UNetRows:
    """Tells a run what the rows of a call of the UNet are, and what they are told of their noise.

    Forge sends the batch through the UNet once for the negative prompt and once for every ``AND``
    part, several of them joined to one call as there is memory and as their lengths allow; the
    parts come last to first. Another extension may call it too, in a callback or in a function
    before, in or after guidance, with pictures of its own or parts of them. Its wrapper may take
    the host's own call apart.
    """

    def __init__(self, run: Run, model: Any, extra_args: dict[str, Any]):
        """``model``: the host's CFG denoiser.

        ``extra_args``: what it is called with, which a refiner replaces.
        """
        self._run, self._model, self._extra_args = run, model, extra_args
        self._conditional, self._others = 0, False
        self._sigma: Tensor | None = None  # the host's own of the present evaluation, [B]
        self._known: list[tuple[Tensor, list[int]]] = []  # pictures in it, with each row's image
        self._pieces = Pieces((), [len(parts) for parts in extra_args["cond"].batch])
        self._here: Rows | None = None

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Inside the ``with`` the parts count from the last one in every evaluation, and what other
        extensions do in the host's callbacks is known as theirs.
        """
        module = sd_samplers_cfg_denoiser
        forward = partial(self._from_the_last, self._model.forward)
        before = partial(self._before_guidance, module.cfg_denoiser_callback)
        after = self._theirs(module.cfg_after_cfg_callback)
        with ExitStack() as stack:
            stack.enter_context(replaced(self._model, "forward", forward))
            stack.enter_context(replaced(module, "cfg_denoiser_callback", before))
            stack.enter_context(replaced(module, "cfg_after_cfg_callback", after))
            yield

    def _from_the_last(self, original: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        self._conditional, self._sigma = 0, None
        self._known.clear()
        return original(*args, **kwargs)

    def _before_guidance(self, original: Callable[[Any], None], params: Any) -> None:
        self._sigma = params.sigma.clone()  # extensions write into it
        self._known.append((params.x, list(range(len(params.x)))))
        self._as_theirs(original, params)

    @contextmanager
    def named(self, sd_model: Any) -> Iterator[None]:
        """Inside the ``with`` the engine's UNet is a clone whose wrapper names the rows."""
        unet = sd_model.forge_objects.unet
        clone = unet.clone()
        for name in clone.model_options.keys() & OTHERS:
            theirs = clone.model_options[name]
            marked = [*map(self._theirs, theirs)] if isinstance(theirs, list) else self._theirs(theirs)
            clone.model_options[name] = marked
        clone.set_model_unet_function_wrapper(_Option(self._wrapper, unet.model_options.get(WRAPPER)))
        sd_model.forge_objects.unet = clone
        try:
            yield
        finally:
            # The host's list of loaded models may keep the clone.
            clone.model_options = unet.model_options
            if sd_model.forge_objects.unet is clone:
                sd_model.forge_objects.unet = unet

    def levels(self, sigma: Tensor, shape: torch.Size) -> Rows | None:
        """The noise levels of the pictures of ``shape`` for which the host's predictor is asked at
        ``sigma [n]``; None where they are all at it.

        Between the calls of the model (ControlNet asks) the pictures are whole batches.
        """
        here = self._here or self._batches(sigma, shape[0])
        if here is None or (here.sigma.shape[0], *here.sigma.shape[-2:]) != (shape[0], *shape[-2:]):
            return None
        return here

    def _batches(self, sigma: Tensor, count: int) -> Rows | None:
        here = self._run.evaluating
        if here is None or count % len(here.sigma):
            return None
        batches = count // len(here.sigma)
        levels, lagging = (torch.cat([map] * batches) for map in (here.sigma, here.lagging))
        told = self._told(sigma.flatten())
        return Rows(levels if told is None else levels * of_rows(told.factor, levels), lagging)

    def _told(self, sigma: Tensor) -> Told | None:
        """What other extensions did to the host's noise level that the model is told, ``[n]``."""
        if self._sigma is None:
            return None
        own = self._sigma[:1].to(sigma)
        return None if torch.equal(sigma, own.expand_as(sigma)) else Told(sigma / own)

    def _theirs(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function`` of other extensions, in which calls of the model are theirs."""

        return update_wrapper(_Option(self._as_theirs, function), function)

    def _as_theirs(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        before, self._others = self._others, True
        try:
            return function(*args, **kwargs)
        finally:
            self._others = before

    def _wrapper(
        self, previous: Callable[..., Tensor] | None, apply_model: Callable[..., Tensor], call: dict[str, Any]
    ) -> Tensor:
        """``previous``: another extension's wrapper, which goes on working around the model."""
        whole = Piece()
        if self._run.evaluating is not None:
            whole = self._whole(call["cond_or_uncond"], call["input"])
            if not whole.rows:
                self._run.unmatched(UNKNOWN)
        apply = partial(self._apply, apply_model, call, whole)
        if previous is None:
            return apply(call["input"], call["timestep"], **call["c"])
        with self._pieces.of_whole(call["input"], whole, call["c"]):
            return previous(apply, call)

    def _apply(
        self, apply_model: Callable[..., Tensor], call: dict[str, Any], whole: Piece, x: Tensor, t: Tensor, **c: Any
    ) -> Tensor:
        piece = whole if x.shape == call["input"].shape else self._piece(whole, call, x, c)
        if not piece.rows:
            return apply_model(x, t, **c)
        tokens = self._tokens(call["c"]["c_crossattn"])
        with self._run.rows(piece.rows, tokens, self._told(t), piece.boxes) as here, self._at(here):
            return apply_model(x, t, **c)

    def _piece(self, whole: Piece, call: dict[str, Any], x: Tensor, c: dict[str, Any]) -> Piece:
        """What another extension's wrapper has taken of ``call``, which holds ``whole``."""
        if whole.boxes is None and (rows := _part(whole.rows, call, x, c["c_crossattn"])):
            return Piece(rows)
        try:
            return self._pieces.of(x, c)
        except TakenApart as error:  # not in the midst of the other extension
            self._run.unmatched(str(error))
            return Piece()

    @contextmanager
    def _at(self, here: Rows | None) -> Iterator[None]:
        self._here = here
        try:
            yield
        finally:
            self._here = None

    def _whole(self, cond_or_uncond: list[int], x: Tensor) -> Piece:
        """What a call with ``x`` holds; no rows if that cannot be told.

        The rows of somebody else's call are unconditional, since nobody may read token maps there.
        """
        count = len(self._extra_args["cond"].batch)
        images = [*range(count)] * len(cond_or_uncond)
        if x.shape[-2:] != self._known[0][0].shape[-2:]:
            return self._placed(x)
        if self._others or len(x) != len(images):
            return Piece([(image, None) for image in images_of(x, self._known, images) or ()])
        self._known.append((x, images))
        rows: list[Row] = []
        # Where the prompts have different numbers of parts, the host takes the least.
        parts = min(map(len, self._extra_args["cond"].batch))
        for unconditional in cond_or_uncond:
            part = None if unconditional else (parts - 1 - self._conditional) % parts
            self._conditional += not unconditional
            rows += [(image, part) for image in range(count)]
        return Piece(rows)

    def _placed(self, x: Tensor) -> Piece:
        """What somebody's call with parts of pictures holds; no rows if one is in none of them."""
        pictures = [pair for batch, images in self._known for pair in zip(batch, images, strict=True)]
        rows: list[Row] = []
        boxes: list[Box] = []
        for one in x:
            found = ((box_of(one, picture), image) for picture, image in pictures)
            box, image = next((place for place in found if place[0] is not None), (None, 0))
            if box is None:
                return Piece()
            rows.append((image, None))
            boxes.append(box)
        return Piece(rows, boxes=boxes)

    def _tokens(self, context: Tensor) -> int:
        """The length of the prompts' own context, which the host repeats to match a longer one."""
        _, text = prompt_parser.reconstruct_multicond_batch(self._extra_args["cond"], self._model.step)
        if not isinstance(text, dict):
            return text.shape[-2]
        # By an option a host lengthens an SDXL prompt with empty chunks instead.
        return context.shape[1] if self._model.padded_cond_uncond else text["crossattn"].shape[1]


class _Option(partial):
    """A function of ours among the options of a UNet.

    A deep copy of it is itself, as of any function: every clone of the UNet copies them.
    """

    def __deepcopy__(self, memo: dict[int, Any]) -> _Option:
        return self


def _part(rows: Sequence[Row], call: dict[str, Any], x: Tensor, context: Tensor) -> list[Row]:
    """The rows of ``x``, which are some of those of ``call``; none if that cannot be told.

    They are known by what they hold.
    """
    whole = list(zip(rows, call["input"], call["c"]["c_crossattn"], strict=True)) if rows else []
    found: list[Row] = []
    for one, words in zip(x, context, strict=True):
        named = [row for row, own, own_words in whole if same(one, own) and same(words, own_words)]
        found += named[:1]
    return found if len(found) == len(x) else []
