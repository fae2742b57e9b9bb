"""The model calls of a run: the hooks on the model, and the rows that each call holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from .. import models
from ..clock.cells import Box, Cells
from ..clock.sigma_map import SigmaMap
from ..errors import TakenApart, Unmatched
from ..masks.source import MaskSource
from ..models.family import Recorded, Row, Size, TokenMaps
from .host import Host
from .piece_maps import PieceMaps
from .walk import Walk


@dataclass(frozen=True)
class Rows:
    """The noise levels of the rows of one call of the model.

    ``sigma`` is ``[n, 1, H, W]``. ``lagging`` is bool ``[n, 1, H, W]``: pixels that are off the
    host's own clock. Both have as many dimensions as the latents.
    """

    sigma: Tensor
    lagging: Tensor


@dataclass(frozen=True)
class Told:
    """What another extension did to the noise level that the model is told of each row.

    ``factor`` ``[n]`` is of the sigma, or of the timestep where ``timestep`` is set.
    """

    factor: Tensor
    timestep: bool = False


@dataclass
class _Evaluation:
    """One evaluation of the host's denoiser, in which it may call the model several times.

    ``coming()`` gives the timesteps of later evaluations, ``timesteps(sigmas)`` those of any
    levels. ``reading`` is whether token maps are read; ``read`` holds the rows that have been.
    ``entered`` is whether the model was called. ``unmatched`` says why a call of it could not have
    its levels.
    """

    sigma: SigmaMap
    lagging: Tensor
    coming: Callable[[], Iterable[Tensor]]
    timesteps: Callable[[Tensor], Tensor]
    reading: bool
    read: set[Row] = field(default_factory=set)
    entered: bool = False
    unmatched: str | None = None


class ModelCall:
    """Gives the cells of every row their noise levels, and reads token maps, while the model runs.

    The host does the calling: :meth:`predict` hands over to it, and it enters :meth:`rows` around
    every call of the model.
    """

    def __init__(self, host: Host, masks: MaskSource, cells: Cells, norms_by_level: bool = False):
        """Raises :class:`Unsupported` if the host's model cannot run on sigma maps."""
        self._norms_by_level = norms_by_level
        self._host, self._masks, self._cells = host, masks, cells
        self._images = cache(partial(torch.tensor, device=cells.device))  # sent to the device once
        self._attached = ExitStack()
        self._evaluation: _Evaluation | None = None
        self._pieces: PieceMaps | None = None  # of the step
        self._size: Size | None = None  # of the latents of the present call of the model
        self._step = 0
        self._problems: set[str] = set()
        self._observe(host.model)

    def _observe(self, model: nn.Module) -> None:
        self._model, family = model, models.of(model)
        self._timesteps = family.timesteps(model)
        self._norms = family.norms(model) if self._norms_by_level else None
        if self._norms_by_level and self._norms is None:
            self._problems.add(f"normalisation by level changes nothing: {family.name} normalises each token by itself")
        self._maps: TokenMaps | None = None
        self._maps_of_pieces: dict[Size, TokenMaps] = {}
        if self._masks.reads:
            self._maps = family.token_maps(model, (self._cells.height, self._cells.width))

    def attach(self) -> None:
        """Put the hooks on the model."""
        with ExitStack() as attached:
            for observer in (self._timesteps, self._norms, self._maps):
                if observer is not None:
                    attached.callback(observer.detach)
                    observer.attach()
            attached.callback(self._model.register_forward_pre_hook(self._called, with_kwargs=True).remove)
            self._attached = attached.pop_all()

    def detach(self) -> None:
        """Take the hooks off the model."""
        self._attached.close()
        self._maps_of_pieces.clear()
        self._pieces = None

    def move(self, model: nn.Module) -> None:
        """The host goes on with another model, also within an evaluation.

        The ordinary pass was the first model's, so the other normalises as it does.
        """
        self.detach()
        self._problems = set(self.problems)
        if self._norms is not None:
            self._norms_by_level = False
            self._problems.add("the refiner's normalisation was its own; by level is for the model that begins")
        self._observe(model)
        self.attach()

    @property
    def learns(self) -> bool:
        """Whether an ordinary pass must come first, by which the model's normalisation knows the
        levels."""
        return self._norms is not None

    def learning(self) -> AbstractContextManager[None]:
        """Entered around that pass."""
        return nullcontext() if self._norms is None else self._norms.learning()

    @property
    def problems(self) -> Set[str]:
        """What the person should be told. Waits for the device."""
        return self._problems | self._timesteps.problems | (self._norms.problems if self._norms else set())

    def predict(self, x: Tensor, sigma: SigmaMap, walk: Walk, read: bool) -> Tensor:
        """The host's guided prediction for ``x [B, C, H, W]`` with every cell at its level in
        ``sigma``, whose timesteps are known.

        ``walk`` has the step's clock. ``read`` is whether token maps are to be read. Raises
        :class:`Unmatched` if pixels did not have their noise levels.
        """
        timesteps = sigma.timesteps
        assert timesteps is not None
        self._evaluation = evaluation = _Evaluation(
            sigma, walk.lagging, lambda: walk.coming(timesteps), walk.timesteps, read
        )
        try:
            prediction = self._host.predict(x, sigma.scalar)
        finally:
            self._evaluation = None
        if not evaluation.entered:
            raise Unmatched(
                "the model was called in a way that AsynDM cannot see, so its pixels had one noise level for all: "
                "another extension replaces the model; switch it or AsynDM off"
            )
        if evaluation.unmatched is not None:
            raise Unmatched(evaluation.unmatched)
        return prediction

    def unmatched(self, why: str) -> None:
        """Somebody calls the model with pictures of which the host cannot tell the noise levels.

        Its pixels have one for all, and the evaluation ends in :class:`Unmatched` with ``why``.
        """
        if self._evaluation is not None:
            self._evaluation.entered, self._evaluation.unmatched = True, why

    @property
    def evaluating(self) -> Rows | None:
        """The noise levels of the batch's images during an evaluation, else None."""
        evaluation = self._evaluation
        return None if evaluation is None else Rows(evaluation.sigma.map, evaluation.lagging)

    def levels(
        self, rows: Sequence[Row], told: Told | None = None, boxes: Sequence[Box] | None = None
    ) -> Rows | None:
        """The noise levels of ``rows``, around calls of the model for which the host enters
        :meth:`rows`.
        """
        evaluation = self._evaluation
        if evaluation is None:
            return None
        *_, sigma = self._told(evaluation, rows, told, boxes)
        return Rows(sigma, self._of(rows, evaluation.lagging, boxes))

    @contextmanager
    def rows(
        self,
        rows: Sequence[Row],
        tokens: int | None = None,
        told: Told | None = None,
        boxes: Sequence[Box] | None = None,
    ) -> Iterator[Rows | None]:
        """Entered by the host around a call of the model with ``rows``.

        ``tokens`` is the length of the prompts' own context, where the host may repeat it. What
        another extension changed in the noise levels that the model is ``told`` holds for every
        cell. ``boxes`` are the pieces of the picture that the rows hold, all of one size; one that
        begins within a cell is refused (:class:`TakenApart`). Outside an evaluation (somebody else
        calls the model) it does nothing and gives None.
        """
        evaluation = self._evaluation
        if evaluation is None:
            yield None
            return
        evaluation.entered = True
        timesteps, index, sigma = self._told(evaluation, rows, told, boxes)
        coming = evaluation.coming() if self._host.steady() else None
        if told is not None:
            coming = None if coming is None else ()
        self._size = (sigma.shape[-2], sigma.shape[-1])
        try:
            with ExitStack() as stack:
                stack.enter_context(self._timesteps.use(timesteps, index, coming))
                if self._norms is not None:
                    stack.enter_context(self._norms.use(None if boxes else rows, timesteps, index))
                stack.enter_context(self._recording(evaluation, rows, tokens, boxes))
                yield Rows(sigma, self._of(rows, evaluation.lagging, boxes))
        finally:
            self._size = None

    def _told(
        self, evaluation: _Evaluation, rows: Sequence[Row], told: Told | None, boxes: Sequence[Box] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The timesteps ``[L]``, index ``[n, 1, h, w]`` and sigmas ``[n, 1, H, W]`` of ``rows``."""
        cells = None if boxes is None else [self._cells.box(box) for box in boxes]
        index, sigma = self._of(rows, evaluation.sigma.index, cells), self._of(rows, evaluation.sigma.map, boxes)
        timesteps = evaluation.sigma.timesteps
        assert timesteps is not None
        return (timesteps, index, sigma) if told is None else _retold(evaluation, timesteps, index, sigma, told)

    def _called(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        x = args[0] if args else kwargs["x"]
        if self._size is not None and x.shape[-2:] != self._size:
            raise TakenApart

    def _recording(
        self, evaluation: _Evaluation, rows: Sequence[Row], tokens: int | None, boxes: Sequence[Box] | None
    ) -> AbstractContextManager[None]:
        if boxes is not None:
            return self._recording_pieces(evaluation, rows, tokens, boxes)
        # What somebody evaluates again in the same step, for a guidance of its own, has been read.
        unread = [None if row[1] is None or row in evaluation.read else row for row in rows]
        evaluation.read.update(rows)
        if self._maps is None or not evaluation.reading:
            return nullcontext()
        self._step = self._host.step()
        return self._maps.record(unread, partial(self._weights, self._step, tokens))

    @contextmanager
    def _recording_pieces(
        self, evaluation: _Evaluation, rows: Sequence[Row], tokens: int | None, boxes: Sequence[Box]
    ) -> Iterator[None]:
        if self._maps is None or not evaluation.reading:
            yield
            return
        self._step, maps = self._host.step(), self._maps_for((boxes[0].height, boxes[0].width))
        shares: dict[Row, Tensor] = {}
        weights = partial(self._weights_shared, shares, tokens)
        with maps.record([None if row[1] is None else row for row in rows], weights):
            yield
        recorded = maps.take()
        if recorded.rows:
            if self._pieces is None:
                self._pieces = PieceMaps(self._cells)
            read = [box for row, box in zip(rows, boxes, strict=True) if row[1] is not None]
            self._pieces.add(recorded, read, [shares[row] for row in recorded.rows])

    def _weights_shared(self, shares: dict[Row, Tensor], tokens: int | None, row: Row, context: int) -> Tensor:
        """The weights of a row's tokens, whose sums are put into ``shares``."""
        own = self._weights(self._step, tokens, row, context)
        shares[row] = own.sum(dim=0)
        return own

    def _maps_for(self, size: Size) -> TokenMaps:
        """What reads the token maps of the whole picture, or of pieces, of ``size``."""
        whole = self._cells.height, self._cells.width
        if self._maps is not None and size == whole:
            return self._maps
        if size not in self._maps_of_pieces:
            maps = self._maps_of_pieces[size] = models.of(self._model).token_maps(self._model, whole, size)
            self._attached.callback(maps.detach)
            maps.attach()
        return self._maps_of_pieces[size]

    def _weights(self, step: int, tokens: int | None, row: Row, context: int) -> Tensor:
        return self._masks.weights(row, step, context, tokens)

    def take(self) -> tuple[Recorded, int]:
        """The token maps that the step has read, and the host's count at which it read them."""
        assert self._maps is not None
        pieces, self._pieces = self._pieces, None
        return (self._maps.take() if pieces is None else pieces.whole(self._maps.size)), self._step

    def _of(self, rows: Sequence[Row], map: Tensor, boxes: Sequence[Box] | None) -> Tensor:
        """The maps of ``rows`` in ``map [B, …]``; of a single image without an operation."""
        images = [image for image, _ in rows]
        if boxes is not None:
            return torch.stack([box.of(map[image]) for image, box in zip(images, boxes, strict=True)])
        if len(map) == 1:
            return map.expand(len(images), *map.shape[1:])
        return map[self._images(tuple(images))]


def of_rows(values: Tensor, map: Tensor) -> Tensor:
    """``values [n]`` with as many dimensions as ``map [n, …]``, whose rows' they are."""
    return values.view(-1, *[1] * (map.dim() - 1))


def _retold(
    evaluation: _Evaluation, timesteps: Tensor, index: Tensor, sigma: Tensor, told: Told
) -> tuple[Tensor, Tensor, Tensor]:
    """The timesteps ``[L]``, index ``[n, 1, h, w]`` and sigmas ``[n, 1, H, W]`` of one call's rows,
    each row's by its factor.

    The first timestep stays: it is that of cells on the host's clock, which have what the model
    itself was told.
    """
    tables, first, retold = [timesteps[:1]], 0, torch.zeros_like(index)
    for factor in told.factor.unique():
        if told.timestep:
            own = timesteps[1:] * factor.to(timesteps)
        else:
            levels = evaluation.sigma.levels
            own = evaluation.timesteps(levels[1:] * factor.to(levels)).to(timesteps)
        here = (told.factor == factor).view(-1, 1, 1, 1) & (index > 0)
        retold = torch.where(here, index + first, retold)
        tables.append(own)
        first += len(own)
    if not told.timestep:
        sigma = sigma * of_rows(told.factor.to(sigma), sigma)
    return torch.cat(tables), retold, sigma
