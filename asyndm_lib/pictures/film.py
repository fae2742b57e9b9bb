"""What a run did, kept small. A :class:`Film` observes a run, for pictures of the method at
work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..clock.cells import Cells
from ..masks.choice import Chosen
from ..models.parts.resampling import resize
from ..run.step import Seen


@dataclass(frozen=True)
class Frame:
    """One step of one image.

    ``i``: its number, from 0, of ``total``. ``sigma``: the host's. ``timesteps``: of every latent
    pixel, ``[h, w]``. ``mask``: which pixels lagged, bool ``[h, w]``.
    """

    i: int
    total: int
    sigma: float
    timesteps: np.ndarray
    mask: np.ndarray

    @property
    def label(self) -> str:
        return f"step {self.i + 1} of {self.total}"


@dataclass(frozen=True)
class Heat:
    """Where a target was found: its token map ``times`` in multiples of its mean, ``[h, w]`` at the
    maps' own size, or of every latent pixel where each cell has a map of its own."""

    name: str
    times: np.ndarray


@dataclass(frozen=True)
class Reel:
    """What is kept of one image: its frames, its last mask and that mask's step, the targets of its
    prompt, and what its masks are called."""

    frames: Sequence[Frame]
    mask: np.ndarray
    step: int
    heats: Sequence[Heat]
    kind: str = "mask"


class Film:
    """Keeps some evenly spaced steps on the CPU, the first among them but not the last, and the
    mean token maps.

    Maps are divided by their mean before they are added up, since the mask threshold is in that
    unit.
    """

    def __init__(self, targets: Sequence[str], most: int, kind: str = "mask"):
        """``targets`` are their names in the order of the maps, empty if no maps are wanted.
        ``most`` is how many steps are kept. ``kind`` is what the masks are called."""
        self._targets, self._most, self._kind = targets, most, kind
        self.clear()

    def clear(self) -> None:
        """Forget everything, for another run."""
        self._steps: list[tuple[int, int, float, Tensor, Tensor]] = []
        self._last: tuple[int, Tensor] | None = None
        self._maps: tuple[Tensor, Tensor] | None = None  # the sum, and in how many steps
        self._chosen: Chosen | None = None

    def __call__(self, seen: Seen) -> None:
        if seen.mask is not None:
            self._last = seen.i, seen.mask.related
        if seen.maps is not None and self._targets:
            self._add(seen.maps, seen.sigma.cells)
        end = max(seen.total - 1, 1)  # where all pixels meet
        if seen.i in {min(round(n * end / self._most), end - 1) for n in range(self._most)}:
            assert seen.sigma.timesteps is not None  # a run knows them when it is seen
            timesteps = seen.sigma.timesteps.float()[seen.sigma.index]
            if seen.sigma.cells is not None:
                timesteps = seen.sigma.cells.pixels(timesteps)
            related = torch.zeros_like(timesteps, dtype=torch.bool) if seen.mask is None else seen.mask.related
            timesteps, related = timesteps[:, 0].cpu(), related[:, 0].cpu()
            self._steps.append((seen.i, seen.total, seen.sigma.scalar.item(), timesteps, related))

    def _add(self, maps: Tensor, cells: Cells | None) -> None:
        mean = maps.mean(dim=(-2, -1), keepdim=True)
        there = mean > 0
        times = torch.where(there, maps / torch.where(there, mean, 1), 0)
        if cells is not None and times.shape[-2:] == cells.size:
            times = cells.pixels(times)  # the last cells of a row and a column may hold fewer
        if self._maps is None:
            self._maps = times, there.int()
        else:
            total, count = self._maps
            # A refiner's maps may have another size.
            self._maps = total + resize(times, *total.shape[-2:]), count + there

    def chose(self, chosen: Chosen) -> None:
        """Take the targets that a run chose by itself, per image. Those it tried and left are not
        shown."""
        self._chosen = chosen

    def __len__(self) -> int:
        return len(self._steps)

    def reel(self, image: int) -> Reel:
        """What was kept of one image, on the CPU. It fails if nothing was seen, that is if
        ``len(film)`` is 0."""
        frames = [
            Frame(i, total, sigma, timesteps[image].numpy(), related[image].numpy())
            for i, total, sigma, timesteps, related in self._steps
        ]
        if self._last is None:
            mask, step = np.zeros_like(frames[0].mask), 0
        else:
            step, related = self._last
            mask = related[image, 0].cpu().numpy()
        return Reel(frames, mask, step, self._heats(image), self._kind)

    def _heats(self, image: int) -> list[Heat]:
        if self._maps is None:
            return []
        total, counts = self._maps
        count = counts[image].cpu()
        times = (total[image].cpu() / count.clamp(min=1)).float().numpy()
        chosen = self._chosen and self._chosen[image]
        entries = zip(self._targets, times, count.flatten().tolist(), strict=True)
        return [Heat(name, own) for name, own, seen in entries if seen and (chosen is None or name in chosen)]
