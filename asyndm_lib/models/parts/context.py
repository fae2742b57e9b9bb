"""Which words of a call's prompts a cross-attention is given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

CHUNK = 77
"""Prompts are whole multiples of so many tokens."""


class Passage(NamedTuple):
    """What a context holds of a call's prompts ``[N, L, C]``.

    Row ``r`` of the context belongs to row ``row + r`` of the call. Its first ``length`` tokens are
    the prompt's tokens from ``first`` on; any others are somebody else's.
    """

    row: int
    first: int
    length: int


def unmarked(prompts: Tensor) -> Tensor:
    """``prompts [N, L, C]`` as they were before an extension set one token in front of them.

    ControlNet's tells it which rows are the prompts; it takes the token away before the attentions.
    """
    return prompts[:, 1:] if prompts.shape[1] > CHUNK and prompts.shape[1] % CHUNK == 1 else prompts


def is_of(context: Tensor, prompts: Tensor | None) -> bool:
    """Whether the first tokens of ``context`` are all tokens of ``prompts``, row for row.

    A context of the same size is: hypernetworks change all of it on its way to the keys.
    ``prompts`` are None where the model was called in another way than the hosts call it.
    """
    if context is prompts or prompts is None or context.shape[:2] == prompts.shape[:2]:
        return True
    prompts = unmarked(prompts)
    if context.shape[:2] == prompts.shape[:2]:
        return True
    longer = context.shape[0] == prompts.shape[0] and context.shape[1] > prompts.shape[1]
    return longer and torch.equal(context[:, : prompts.shape[1]], prompts.to(context))


def own_rows(context: Tensor, prompts: Tensor | None, rows: Sequence[int]) -> Sequence[int] | None:
    """Where in ``context`` the given ``rows`` of ``prompts`` are; None unless all are there.

    They are elsewhere if another extension has put rows of other prompts between the call's own, as
    Forge Couple does. The own ones are then known by what they hold, and come in the call's order.
    """
    if is_of(context, prompts):
        return rows
    if prompts is None or len(context) <= len(prompts) or context.shape[1] < prompts.shape[1]:
        return None
    begins, places = context[:, : prompts.shape[1]], [-1]
    for row in rows:
        own = prompts[row].to(context)
        places.append(next((n for n in range(places[-1] + 1, len(begins)) if torch.equal(begins[n], own)), len(begins)))
    return None if places[-1] == len(begins) else places[1:]


def rows_of(x: Tensor, batch: Tensor) -> list[int]:
    """Where in ``batch`` the rows of ``x`` may begin. A call of as many rows is the whole batch."""
    if len(x) == len(batch):
        return [0]
    if x.shape[1:] != batch.shape[1:]:
        return []
    return [n for n in range(len(batch) - len(x) + 1) if torch.equal(x, batch[n : n + len(x)].to(x))]


def passage(context: Tensor, prompts: Tensor, rows: list[int], taken: list[Passage]) -> Passage:
    """The longest passage of ``prompts`` that ``context`` begins with, in rows from one of ``rows``
    on.

    Of several that are equal it is one that is not yet ``taken``.
    """
    passages = []
    for row in rows:
        own = prompts[row : row + len(context)].to(context)
        begins = (own == context[:, :1]).all(dim=2).all(dim=0)
        for first in begins.nonzero().flatten().tolist():
            length = min(context.shape[1], own.shape[1] - first)
            same = (own[:, first : first + length] == context[:, :length]).all(dim=2).all(dim=0)
            passages.append(Passage(row, first, int(same.cumprod(dim=0).sum())))
    return max(passages, key=lambda p: (p.length, p not in taken), default=Passage(rows[0], 0, 0))
