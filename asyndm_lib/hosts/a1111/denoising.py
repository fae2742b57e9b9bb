"""The host's denoiser, and the model in it, by each pixel's own noise level.

Other extensions may stand in the place of the denoiser's ``forward`` or of the model's
``apply_model``, and give the original one pieces of the picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...errors import TakenApart
from ...models.parts.patching import replaced
from ...run.model_call import Rows
from ...run.run import Run
from ..common.per_pixel import at_own_levels, eps_of_v, scalings
from ..common.pieces import Method, Piece, Pieces, given, stranger
from .models import flow_of


class Denoising:
    """What ``run`` does to the host's ``denoiser``, which predicts by ``sd_model``."""

    def __init__(
        self,
        run: Run,
        denoiser: Any,
        sd_model: Any,
        whole: Callable[[Tensor, Tensor], Piece],
        pieces: Callable[[], Pieces],
    ):
        """``whole(x, sigma)``: what a call of the denoiser holds; no rows if that is not known.

        ``pieces``: makes what knows the pieces of such a call.
        """
        self._run, self._denoiser, self._sd_model, self._whole = run, denoiser, sd_model, whole
        self._of_denoiser, self._of_model = pieces(), pieces()
        self._apply_model: Method | None = None  # another extension's, which cuts what it is given

    @contextmanager
    def patched(self) -> Iterator[None]:
        """Each pixel at its own noise level, inside the ``with`` only."""
        denoiser, sd_model = self._denoiser, self._sd_model
        with ExitStack() as stack:
            apply_model, forward = stranger(sd_model, "apply_model"), stranger(denoiser, "forward")
            if apply_model and stack.enter_context(given(sd_model, "apply_model", self._applied)):
                self._apply_model = apply_model
            if forward is None:
                denoise = partial(self._denoise, denoiser.forward)
            elif stack.enter_context(given(denoiser, "forward", self._denoised)):
                denoise = partial(self._denoise_apart, forward)
            else:
                denoise = partial(self._denoise_unseen, forward)
            stack.enter_context(replaced(denoiser, "forward", partial(self._forward, denoise)))
            yield

    def _forward(self, denoise: Method, input: Tensor, sigma: Tensor, **kwargs: Any) -> Tensor:
        return denoise(self._whole(input, sigma), input, sigma, **kwargs)

    def _denoise(self, forward: Method, piece: Piece, input: Tensor, sigma: Tensor, **kwargs: Any) -> Tensor:
        with ExitStack() as stack:
            here = None
            if self._apply_model is not None:
                here = self._run.levels(piece.rows, piece.told, piece.boxes) if piece.rows else None
                apply_model = partial(self._apply_apart, self._apply_model, piece)
                stack.enter_context(replaced(self._sd_model, "apply_model", apply_model))
            elif piece.rows:
                here = stack.enter_context(self._run.rows(piece.rows, told=piece.told, boxes=piece.boxes))
            for scaled in (scalings, _velocity, _lcm):
                stack.enter_context(scaled(self._denoiser, here))
            stack.enter_context(_flow(flow_of(self._sd_model), here))
            return forward(input, sigma, **kwargs)

    def _denoise_apart(self, theirs: Method, whole: Piece, input: Tensor, sigma: Tensor, **kwargs: Any) -> Tensor:
        with self._of_denoiser.of_whole(input, whole, kwargs["cond"]):
            return theirs(input, sigma, **kwargs)

    def _denoised(self, own: Method) -> Method:
        """The denoiser's ``own`` forward, as another extension calls it with pieces."""
        return partial(self._denoise_piece, own)

    def _denoise_piece(self, own: Method, input: Tensor, sigma: Tensor, **kwargs: Any) -> Tensor:
        return self._denoise(own, self._of_denoiser.of(input, kwargs["cond"]), input, sigma, **kwargs)

    def _denoise_unseen(self, theirs: Method, whole: Piece, input: Tensor, sigma: Tensor, **kwargs: Any) -> Tensor:
        try:
            return self._denoise(theirs, whole, input, sigma, **kwargs)
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:  # its pieces meet the noise levels of the whole picture
            raise TakenApart from error

    def _apply_apart(
        self, theirs: Method, whole: Piece, x: Tensor, t: Tensor, cond: Any, *args: Any, **kwargs: Any
    ) -> Tensor:
        with self._of_model.of_whole(x, whole, cond):
            return theirs(x, t, cond, *args, **kwargs)

    def _applied(self, own: Method) -> Method:
        """The model's ``own`` apply_model, as another extension calls it with pieces."""
        return partial(self._apply_piece, own)

    def _apply_piece(self, own: Method, x: Tensor, t: Tensor, cond: Any, *args: Any, **kwargs: Any) -> Tensor:
        piece = self._of_model.of(x, cond)
        if not piece.rows:
            return own(x, t, cond, *args, **kwargs)
        with self._run.rows(piece.rows, told=piece.told, boxes=piece.boxes):
            return own(x, t, cond, *args, **kwargs)


@contextmanager
def _velocity(denoiser: Any, here: Rows | None) -> Iterator[None]:
    """The timestep samplers' v → eps at each pixel's own noise level."""
    if here is None or not hasattr(denoiser, "predict_eps_from_z_and_v"):
        yield
        return
    formula = partial(_eps_of_v, here, denoiser.predict_eps_from_z_and_v)
    with replaced(denoiser, "predict_eps_from_z_and_v", formula):
        yield


def _eps_of_v(here: Rows, original: Callable[..., Tensor], x: Tensor, timestep: Tensor, v: Tensor) -> Tensor:
    return torch.where(here.lagging, eps_of_v(x, v, here.sigma).to(v.dtype), original(x, timestep, v))


@contextmanager
def _at_own_levels(name: str, owner: Any, here: Rows | None) -> Iterator[None]:
    """A formula ``name(sigma, output, input)`` of ``owner`` at each pixel's own noise level."""
    if here is None or not hasattr(owner, name):
        yield
        return
    with replaced(owner, name, partial(_by_pixel, here, getattr(owner, name))):
        yield


def _by_pixel(here: Rows, original: Callable[..., Tensor], sigma: Tensor, output: Tensor, input: Tensor) -> Tensor:
    return at_own_levels(original, original(sigma, output, input), here, output, input)


_lcm = partial(_at_own_levels, "get_scaled_out")
"""LCM's boundary condition."""

_flow = partial(_at_own_levels, "calculate_denoised")
"""A flow's picture. The owner: see :func:`models.flow_of`."""
