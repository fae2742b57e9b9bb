"""A timestep for every token of a transformer's picture, in its plain form (docs/METHOD.md, section
5).

A transformer sees the timestep only through the modulations (adaLN) of its blocks: a vector ``[n,
k·D]`` of shifts, scales and gates for each row. Here every token of the picture gets the vector of
its own level. Text, pads, registers and reference pictures keep the row's.
:class:`tabled_modulation.TabledModulation` does the same in less time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..family import Size
from .own_pass import OwnPass
from .patching import replaced, watched
from .resampling import cells
from .token_vectors import TokenVectors, changed, joined


@dataclass(frozen=True)
class Modulation:
    """A module that makes modulations of an embedding ``[n, …, E]``, or several in lists or
    dataclasses.

    They are of the picture's tokens, of reference pictures and pads behind these, and with
    ``joint`` of the text before them. ``between(embeddings, own)``: what the model makes of other
    embeddings before the module is given them, where it is given ``own``.
    """

    module: nn.Module
    joint: bool = False
    between: Callable[[Tensor, Tensor], Tensor] | None = None


Spread = Callable[..., Any]
"""``spread(own, joint=False, between=None)``: what stands for a part of the embedding, ``own [n, …,
E]``, or for what was made of it; see :class:`Modulation`."""


@dataclass(frozen=True)
class Handed:
    """A module that is handed the embedding, or what was made of it, beside the tokens.

    It comes as the argument ``name``, or else as the second. ``change(handed, spread)`` is what the
    module is given in its place.
    """

    module: nn.Module
    name: str
    change: Callable[[Any, Spread], Any]


def as_they_are(timesteps: Tensor, own: Tensor) -> Tensor:
    """What a module is given that embeds timesteps itself."""
    return timesteps.to(own)


@dataclass(frozen=True)
class ModulationSites:
    """The places of a transformer through which the timestep reaches its picture.

    ``time`` makes embeddings ``[n, …, E]`` of its first argument; ``given(timesteps [k], own)`` is
    that argument for any timesteps, where ``own`` is the model's for its rows. ``labels`` make what
    is added to each row's, in this order. ``modulations`` are made of the sum. ``patches`` makes a
    feature map ``[n, D, h, w]`` of the latents, with a pixel for each token; without it they are as
    many as the cells. ``text`` makes the tokens ``[n, tokens, D]`` that come before the picture's
    in joint modulations. ``around()`` is entered while the hooks are on the model.
    """

    time: nn.Module
    modulations: Sequence[Modulation]
    own_pass: OwnPass
    labels: Sequence[nn.Module] = ()
    given: Callable[[Tensor, Tensor], Tensor] = as_they_are
    patches: nn.Module | None = None
    text: nn.Module | None = None
    handed: Sequence[Handed] = ()
    around: Callable[[], AbstractContextManager] = nullcontext


class TokenModulation:
    """The plain :class:`family.CellTimesteps` of a transformer.

    A row whose cells are all at one level is the model's own call at that level, its text too. A
    cell on the synchronous clock has what the model's own layers give for its row.
    """

    problems: Set[str] = frozenset()

    def __init__(self, sites: ModulationSites):
        self._sites, self._attached = sites, ExitStack()
        self._call: Call | None = None

    def attach(self) -> None:
        """Put the hooks on the model."""
        sites, attached = self._sites, self._attached
        attached.callback(sites.own_pass.detach)
        sites.own_pass.attach()
        time = sites.time
        attached.callback(time.register_forward_pre_hook(self._before_time, with_kwargs=True).remove)
        attached.callback(time.register_forward_hook(self._after_time, with_kwargs=True).remove)
        for label in sites.labels:
            attached.callback(label.register_forward_hook(self._after_label).remove)
        if sites.patches is not None:
            attached.enter_context(watched(sites.patches, self._after_patches))
        if sites.text is not None:
            attached.enter_context(watched(sites.text, self._after_text))
        for site in sites.modulations:
            forward = partial(self._modulate, site, site.module.forward)
            attached.enter_context(replaced(site.module, "forward", forward))
        for taken in sites.handed:
            hook = partial(self._hand, taken)
            attached.callback(taken.module.register_forward_pre_hook(hook, with_kwargs=True).remove)
        attached.enter_context(sites.around())

    def detach(self) -> None:
        """Take the hooks off the model."""
        self._attached.close()
        self._call = None

    @contextmanager
    def use(self, timesteps: Tensor, index: Tensor, coming: Iterable[Tensor] | None = ()) -> Iterator[None]:
        """Cell ``p`` of row ``n`` is at ``timesteps[index[n, 0, p]]`` in one call of the model.

        Waits for the device once: which rows have one level decides what is to be done.
        """
        self._call = Call(timesteps, index) if len(timesteps) > 1 else None
        try:
            yield
        finally:
            self._call = None

    @property
    def _calls(self) -> int:
        return self._sites.own_pass.calls

    def _before_time(self, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        """The timesteps of rows that are at another level than the host's as a whole."""
        call = self._call
        if call is None or call.embedding or call.embedded == self._calls or not any(call.levels):
            return None
        levels = torch.tensor(call.levels, device=call.timesteps.device)
        there = self._sites.given(call.timesteps[levels], args[0])
        own = torch.where((levels == 0).view(-1, *[1] * (there.dim() - 1)), args[0], there)
        return (own, *args[1:]), kwargs

    def _after_time(self, module: nn.Module, args: tuple, kwargs: dict, output: Tensor) -> None:
        call = self._call
        if call is None or call.embedding:
            return
        if call.embedded == self._calls:  # a time of the model's own, as references may have
            call.others.append(output)
            return
        call.embedded = self._calls
        if not call.mixed:
            return
        given = self._sites.given
        call.embedding = True  # the module is called again from here
        call.lagging = self._lagging(
            lambda t: module(given(t, args[0]), *args[1:], **kwargs), call.timesteps[1:], len(output)
        )
        call.embedding = False

    def _after_label(self, module: nn.Module, args: tuple, output: Tensor) -> None:
        if self._call is not None and self._call.lagging is not None:
            self._call.lagging = self._call.lagging + output

    def _after_patches(self, output: Tensor) -> None:
        if self._call is not None:
            self._call.size = (output.shape[-2], output.shape[-1])

    def _after_text(self, output: Tensor) -> None:
        if self._call is not None:
            self._call.text = output.shape[1]

    def _modulate(self, site: Modulation, forward: Callable[[Tensor], Any], emb: Tensor) -> Any:
        """What stands for the modulations of ``emb [n, …, E]``; the model's own where none lags."""
        call = self._call
        if call is None or call.lagging is None or not self._sites.own_pass.here:
            return forward(emb)
        if any(emb is other for other in call.others):
            return forward(emb)
        table = self._table(call, forward, emb, partial(_given, site.between, emb))
        places = partial(call.places, len(emb), call.lagging.shape[1], site.joint)
        return changed(table, partial(TokenVectors, n=len(emb), cells=call.cells, places=places))

    def _lagging(self, embed: Callable[[Tensor], Tensor], timesteps: Tensor, n: int) -> Tensor:
        """The embeddings of ``timesteps [L]``, ``[L, n, …, E]``, or ``[L, 1, …, E]`` where all rows
        have the same.
        """
        return torch.stack([embed(t.expand(n)) for t in timesteps])

    def _hand(self, taken: Handed, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        call = self._call
        if call is None or call.lagging is None or not self._sites.own_pass.here:
            return None
        spread = partial(self._spread, module)
        if taken.name in kwargs:
            return args, {**kwargs, taken.name: taken.change(kwargs[taken.name], spread)}
        return (args[0], taken.change(args[1], spread), *args[2:]), kwargs

    def _spread(
        self,
        module: nn.Module,
        own: Tensor,
        joint: bool = False,
        between: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> Any:
        """What stands for ``own``, which ``module`` is given ready-made."""
        return self._modulate(Modulation(module, joint, between), lambda emb: emb, own)

    def _table(
        self, call: Call, forward: Callable[[Tensor], Any], emb: Tensor, own: Callable[[Tensor], Tensor]
    ) -> Any:
        """The modulations of ``emb [n, …, E]``, then of the lagging levels ``[L, m, …, E]``, as
        ``[n + L·m, …]``.

        ``own`` makes what ``forward`` is given of embeddings ``[k, …, E]``.
        """
        assert call.lagging is not None
        return joined([forward(emb), *(forward(own(lagging)) for lagging in call.lagging)])


def _given(between: Callable[[Tensor, Tensor], Tensor] | None, emb: Tensor, lagging: Tensor) -> Tensor:
    """What a module is given of other embeddings ``[k, …, E]`` where it is given ``emb``."""
    return (lagging if between is None else between(lagging, emb)).view(-1, *emb.shape[1:])


class Call:
    """One call of the model.

    ``levels``: the level of each row as a whole, that of its text. ``mixed``: whether a row has
    cells at several. ``lagging``: the embeddings of all levels but the first, ``[L - 1, n or 1, …,
    E]``. ``embedded``: in which call of the model they were made, as somebody may call it again;
    ``others`` are embeddings that it made after. ``size``: rows and columns of the picture's
    tokens. ``text``: how many tokens come before them.
    """

    def __init__(self, timesteps: Tensor, index: Tensor):
        self.timesteps = timesteps
        self.lagging: Tensor | None = None
        self.embedding, self.embedded = False, -1
        self.others: list[Tensor] = []
        self.size: Size = (index.shape[-2], index.shape[-1])
        self.text = 0
        flat = index.flatten(1)
        alike = (flat == flat[:, :1]).all(dim=1)
        levels = torch.where(alike, flat[:, 0], -1).tolist()
        self.mixed, self.alike = -1 in levels, any(level >= 0 for level in levels)
        self.levels = [max(level, 0) for level in levels]
        # A row as a whole has what the model gives for it, which is the table's first.
        self._index = index.masked_fill(alike.view(-1, 1, 1, 1), 0) if self.mixed and self.alike else index
        self._places: dict[tuple[int, ...], Tensor] = {}

    @property
    def cells(self) -> int:
        """How many tokens the picture has."""
        return self.size[0] * self.size[1]

    def places(self, n: int, m: int, joint: bool, tokens: int) -> Tensor:
        """The places of each row's ``tokens`` in a table of ``n`` rows and then of ``m`` for each
        lagging level: int64 ``[n·tokens]``. ``joint`` tokens begin with the text's.
        """
        before = self.text if joint else 0
        key = n, m, before, tokens
        if key not in self._places:
            levels, rows = self._tokens, torch.arange(n, device=self._index.device)[:, None]
            there = levels * n + rows if m == n else levels + (n - 1)
            own = torch.where(levels == 0, rows, there)
            behind = tokens - before - levels.shape[1]
            around = [rows.expand(-1, before), own, rows.expand(-1, behind)]
            self._places[key] = torch.cat(around, dim=1).flatten()
        return self._places[key]

    @property
    def _tokens(self) -> Tensor:
        """The level of every token of the picture, int64 ``[n, tokens]``."""
        flat, size = self._index.flatten(1), (self._index.shape[-2], self._index.shape[-1])
        return flat if self.size == size else flat.index_select(1, cells(self.size, size, flat.device))
