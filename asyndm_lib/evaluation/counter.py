"""The counter network: which things a picture of the embedded model shows, and where.

It marks the centre of every object in a grid of 8×8 pixels, as "Objects as Points" does (Zhou et
al. 2019), but with a centre's class and nothing else. :mod:`counter_training` trained it on
rendered scenes that went through the model's autoencoder.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..demo.training.concepts import CONCEPTS, UNSEEN
from ..errors import AsynDMError

WEIGHTS = Path(__file__).parent / "counter.safetensors"
"""The weights of the counter for the embedded model. The JSON file of the same name says how it did
on new scenes."""

NAMES: tuple[str, ...] = tuple(concept.name for concept in (*CONCEPTS, *UNSEEN))
"""The names of the things that it tells apart."""

CELL = 8
"""The edge of a grid cell in pixels."""

APART = 2
"""How many cells around a centre hold no other: only the surest counts. Objects that can be told
apart are farther from each other."""

SURE = 0.4
"""The least confidence of a centre."""


class Found(NamedTuple):
    """One object: its name, and its centre in pixels."""

    name: str
    x: float
    y: float


def tally(found: Sequence[Found]) -> Counter[str]:
    """How many things of each name there are."""
    return Counter(thing.name for thing in found)


class CounterNetwork(nn.Module):
    """A network that finds centres: pictures ``[n, 3, H, W]`` in [-1, 1] → logits ``[n, names, H/8,
    W/8]``."""

    def __init__(self, names: int = len(NAMES)):
        super().__init__()
        self.stem = nn.Sequential(nn.AvgPool2d(2), _layer(3, 32, 2), _Residual(32))
        self.fine = nn.Sequential(_layer(32, 64, 2), _Residual(64), _Residual(64))
        self.coarse = nn.Sequential(_layer(64, 96, 2), _Residual(96), _Residual(96, 2), _Residual(96, 1))
        self.join = _layer(64 + 96, 96, 1)
        self.head = nn.Conv2d(96, names, 1)
        nn.init.constant_(self.head.bias, -4.0)  # nearly all cells hold no centre

    def forward(self, pictures: Tensor) -> Tensor:
        fine = self.fine(self.stem(pictures))
        coarse = F.interpolate(self.coarse(fine), scale_factor=2.0, mode="nearest")
        return self.head(self.join(torch.cat([fine, coarse], dim=1)))


def _layer(inner: int, outer: int, stride: int, dilation: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inner, outer, 3, stride, padding=dilation, dilation=dilation, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outer), nn.SiLU())


class _Residual(nn.Module):
    def __init__(self, channels: int, dilation: int = 1):
        super().__init__()
        self.layers = nn.Sequential(_layer(channels, channels, 1, dilation), _layer(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


def load(device: torch.device, path: Path = WEIGHTS) -> CounterNetwork:
    """The trained network.

    Raises :class:`FileNotFoundError` if its weights are not there, and :class:`AsynDMError` if the
    file holds others.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    counter = CounterNetwork()
    try:
        counter.load_state_dict({name: value.float() for name, value in load_file(path).items()})
    except (SafetensorError, RuntimeError) as error:
        raise AsynDMError(f"{path} holds no weights of the counter") from error
    return counter.requires_grad_(False).eval().to(device)


@torch.no_grad()
def find(counter: CounterNetwork, pictures: Tensor) -> list[list[Found]]:
    """The objects of every picture ``[n, 3, H, W]`` in [-1, 1]."""
    return centres(counter(pictures).float().sigmoid())


def centres(confidence: Tensor) -> list[list[Found]]:
    """The objects in ``confidence [n, names, h, w]``: the cells that are surest among those around
    them."""
    best, name = confidence.max(dim=1)
    around = F.max_pool2d(best[:, None], 2 * APART + 1, stride=1, padding=APART)[:, 0]
    kept = (best == around) & (best > SURE)
    found: list[list[Found]] = [[] for _ in best]
    for (picture, row, column), which in zip(kept.nonzero().tolist(), name[kept].tolist(), strict=True):
        found[picture].append(Found(NAMES[which], column * CELL, row * CELL))
    return found
