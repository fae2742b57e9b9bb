"""The interface between the method and one kind of model.

To add a family, write one file beside this one with an object ``FAMILY`` that has the methods of
:class:`Family`. ``models.of(model)`` then finds it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence, Set
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from torch import Tensor, nn

Size = tuple[int, int]
"""Height and width."""

Row = tuple[int, "int | None"]
"""A row of a model's batch: its image, and its ``AND`` part if it is conditional, else None."""

Weights = Callable[[Row, int], Tensor]
"""``weights(row, context)``: what each token of a row counts for each target, ``[context, T]``."""


class Family(Protocol):
    """One kind of model: where time enters it, and where its picture looks at the prompt.

    A cell is what can have a noise level of its own: a latent pixel, or the square of latent pixels
    that one token of a transformer stands for.
    """

    @property
    def name(self) -> str:
        """What a person calls the family."""

    def matches(self, model: nn.Module) -> bool:
        """Whether ``model`` is of this family. Asked of every model, so it looks at names only."""

    def check(self, model: nn.Module) -> None:
        """Raise :class:`errors.Unsupported` if the method cannot reach the layers of ``model``."""

    def side(self, model: nn.Module) -> int:
        """The side of a cell in latent pixels."""

    def timesteps(self, model: nn.Module) -> CellTimesteps:
        """What gives the cells of a batch timesteps of their own."""

    def norms(self, model: nn.Module) -> CellNorms | None:
        """What normalises the cells of a batch by their levels; None if nothing in ``model`` pools
        over them."""

    def token_maps(self, model: nn.Module, latent: Size, piece: Size | None = None) -> TokenMaps:
        """What reads the token maps of ``model`` for latents of size ``latent``.

        With ``piece`` the model is given pieces of that size: what is read of them is what would be
        read of the whole latent.
        Raises :class:`errors.Unsupported` if the model does not attend to a prompt.
        """


class CellTimesteps(Protocol):
    """A timestep for every cell of a model's batch.

    Everything that it does to the model is undone by :meth:`detach`.
    """

    @property
    def problems(self) -> Set[str]:
        """What the person should be told afterwards. It may wait for the device."""

    def attach(self) -> None:
        """Put the hooks on the model. They do nothing outside :meth:`use`."""

    def detach(self) -> None:
        """Take the hooks off the model."""

    def use(
        self, timesteps: Tensor, index: Tensor, coming: Iterable[Tensor] | None = ()
    ) -> AbstractContextManager[None]:
        """Cell ``p`` of row ``n`` is at ``timesteps[index[n, 0, p]]`` in one call of the model.

        ``timesteps`` ``[L]`` are distinct; the model itself is called with the first. ``index`` is
        int64 ``[N, 1, h, w]``. ``coming`` are the timesteps of later calls, as far as known; None
        if nothing may be made ahead, as what the model's layers compute may change unseen. With a
        single timestep the model runs as it is.
        """


class CellNorms(Protocol):
    """Normalisation that goes by the cells' levels.

    Everything that it does to the model is undone by :meth:`detach`.
    """

    @property
    def problems(self) -> Set[str]:
        """What the person should be told afterwards."""

    def attach(self) -> None:
        """Put the hooks on the model. They do nothing outside :meth:`use`."""

    def detach(self) -> None:
        """Take the hooks off the model, and forget what was seen."""

    def learning(self) -> AbstractContextManager[None]:
        """Inside it the calls of the model are those of an ordinary pass, from which it learns how
        a picture at one level is normalised."""

    def use(
        self, rows: Sequence[Row] | None, timesteps: Tensor, index: Tensor
    ) -> AbstractContextManager[None]:
        """Cell ``p`` of row ``n`` is at ``timesteps[index[n, 0, p]]`` in one call of the model.

        ``rows`` names the batch's rows; None for pieces of pictures. With a single timestep the
        model runs as it is.
        """


class Recorded(NamedTuple):
    """Token maps of the rows that were read in one model evaluation.

    ``rows`` names them. ``maps`` ``[rows, T, h, w]`` are means over heads and layers. ``reach``
    ``[rows, T]`` is the part of the picture that is shown each target, where another extension
    shows words to parts of it only; a map is zero elsewhere. None where all is shown all.
    """

    rows: list[Row]
    maps: Tensor
    reach: Tensor | None = None


class TokenMaps(Protocol):
    """How strongly each cell attends to each target, read while the model runs.

    The model computes what it would compute without. ``size`` is the maps' own.
    """

    size: Size

    def attach(self) -> None:
        """Put the hooks on the model. They do nothing outside :meth:`record`."""

    def detach(self) -> None:
        """Take the hooks off the model, and forget what was recorded."""

    def record(
        self, rows: Sequence[Row | None], weights: Weights
    ) -> AbstractContextManager[None]:
        """Read the rows that ``rows`` names in one call of the model.

        ``rows[n]`` is the name of batch row ``n``; a row named None is not read.
        """

    def take(self) -> Recorded:
        """Everything recorded since the last time, which is then forgotten."""
