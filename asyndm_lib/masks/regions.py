"""Which pixels are related in which step: token maps → relations, by the mask timing (METHOD, section 2)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import cache, partial

import torch
from torch import Tensor, nn

from ..clock.clocks import Relation
from ..masks.choice import EVALUATIONS, Choice
from ..models.parts.resampling import Resize
from ..models.parts.token_maps import TokenMaps
from ..prompt.prompt_targets import PromptTargets
from ..run.host import Row
from ..settings.settings import Settings
from .threshold import everywhere, relate, relate_alike


class WholePicture:
    """Every pixel related in every step, without targets: the paper's DM_concave."""

    rehearsing = False
    problems: frozenset[str] = frozenset()
    maps = choice = None

    def __init__(self, concavity: float, shape: Sequence[int], device: torch.device):
        """``shape``: of the maps, ``[B, 1, H, W]``."""
        self.concavities = [concavity]
        images = torch.full((shape[0],), concavity, dtype=_precision(device), device=device)
        self._relation = everywhere(images, *shape[-2:])

    def attach(self) -> None:
        """Nothing is read from the UNet."""

    detach = attach

    def move(self, unet: nn.Module, targets: PromptTargets | None) -> None:
        """Nothing is read from this one either."""

    def begin(self, moves: Sequence[bool], step: int) -> None:
        """A new pass; see :meth:`TargetRegions.begin`."""

    @property
    def latest(self) -> Relation:
        """What is known to be related before an evaluation."""
        return self._relation

    def wants(self, i: int) -> bool:
        """Whether some advance to come depends on the token maps of evaluation ``i``."""
        return False

    def after(self, i: int) -> Relation:
        """What is related in the advance that follows evaluation ``i``."""
        return self._relation


class TargetRegions:
    """The regions of target words, from the token maps of the step before, the same step, or an ordinary pass first.

    ``concavities``: of every target. ``problems``: what the person should be told. ``rehearsing``: whether
    the present or next pass is the ordinary one that makes static masks. ``maps``: the token maps
    ``[B, T, h, w]`` that the present step read, or that made the static masks, else None; those of candidates that
    are not chosen are zero. ``choice``: among the candidates of images that name no targets; None if all name some.
    """

    def __init__(
        self,
        targets: PromptTargets,
        settings: Settings,
        unet: nn.Module,
        shape: Sequence[int],
        device: torch.device,
    ):
        """``shape``: of the maps, ``[B, 1, H, W]``. Raises :class:`Unsupported` for a UNet without cross-attention."""
        self._targets, self._settings = targets, settings
        self._images, self._size = shape[0], tuple(shape[-2:])
        self._device = device
        self._maps = TokenMaps(unet, *self._size)
        self.concavities = [settings.concavity if t.concavity is None else t.concavity for t in targets.targets]
        self._k = torch.tensor(self.concavities, dtype=_precision(device), device=device)
        self.problems: set[str] = set()
        self.choice = Choice(targets, device) if targets.automatic else None
        self.rehearsing = settings.mask_timing == "static"
        self._static: Relation | None = None
        self.maps: Tensor | None = None
        self._index = cache(partial(torch.tensor, device=device))  # sent to the device once
        self._to_latent = Resize(*self._size)
        self._present_k: tuple[Tensor, Tensor] | None = None

    def attach(self) -> None:
        self._maps.attach()

    def detach(self) -> None:
        self._maps.detach()

    def move(self, unet: nn.Module, targets: PromptTargets) -> None:
        """Read another model from now on. ``targets``: the same ones, where they stand in its prompts."""
        self._targets = targets
        self._maps = TokenMaps(unet, *self._size)

    def begin(self, moves: Sequence[bool], step: int) -> None:
        """A new pass. ``moves``: for each of its evaluations whether the clock moves after it. ``step``: the host's."""
        self._moves = [*moves, False]
        self._sum: Tensor | None = None
        self._seen = torch.zeros(self._images, len(self.concavities), device=self._device)
        # Before the first map exists every pixel counts as related, of the images that hold a target.
        present = self._targets.present(step, self._device)
        self._before = everywhere(self._concavities(present).amax(dim=1), *self._size)

    @property
    def latest(self) -> Relation:
        """What is known to be related before an evaluation."""
        return self._nothing() if self.rehearsing else self._static or self._before

    def wants(self, i: int) -> bool:
        """Whether some advance to come depends on the token maps of evaluation ``i``."""
        if self._static is not None:
            return False
        if self.choice is not None and i < EVALUATIONS:
            return True
        ahead = 1 if self._settings.mask_timing == "lagged" else 0
        return self.rehearsing or self._moves[i + ahead]

    def record(self, rows: Sequence[Row], step: int, tokens: int | None = None) -> AbstractContextManager:
        """Around a call of the UNet with ``rows``, at the host's ``step``; only the conditional ones are read.

        ``tokens``: the length of their own context, where the host may repeat it.
        """
        self._step = step
        read = [row if row[1] is not None else None for row in rows]
        return self._maps.record(read, partial(self._weights, step, tokens))

    def after(self, i: int) -> Relation:
        """What is related in the advance that follows evaluation ``i``."""
        if self._static is not None:
            return self._static
        self.maps = None
        read = self._read() if self.wants(i) else None
        if self.rehearsing:
            return self._nothing()
        related = read if self._settings.mask_timing == "fresh" else self._before
        self._before = read if read is not None else self._before
        return related

    def end_rehearsal(self) -> None:
        """From now on: the masks of each target's mean map over the ordinary pass's steps that held it."""
        self.rehearsing = False
        if self._sum is None:
            self._static = self._nothing()
            return
        mean = self._sum / self._seen.clamp(min=1)[:, :, None, None]
        mean, seen = self._of_targets(mean, self._seen > 0)
        self._static, self.maps = self._relate(mean, seen), mean

    def _read(self) -> Relation | None:
        """The relation that this step's token maps give; None in a rehearsal, which only adds them up."""
        rows, maps = self._maps.take()
        present = self._targets.present(self._step, self._device)
        if not rows:
            self.problems.add(
                "no token maps could be read (another extension changes the size inside the model?), "
                "so nothing was related in some steps"
            )
            return self._nothing()
        images = tuple(image for image, _ in rows)
        if images != tuple(range(self._images)):
            # An image's AND parts share its targets: their weights add up to the mean over all tokens.
            maps = maps.new_zeros(self._images, *maps.shape[1:]).index_add(0, self._index(images), maps)
        if self.choice is not None:
            self.choice.see(maps, self._targets.present(self._step))
        if self.rehearsing:
            seen = maps * present[:, :, None, None]
            self._sum = seen if self._sum is None else self._sum + seen
            self._seen = self._seen + present
            return None
        self.maps, present = self._of_targets(maps, present)
        return self._relate(maps, present)

    def _of_targets(self, maps: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Without the candidates that are not chosen."""
        if self.choice is None:
            return maps, present
        return maps * self.choice.chosen[:, :, None, None], present & self.choice.chosen

    def _relate(self, maps: Tensor, present: Tensor) -> Relation:
        if len(set(self.concavities)) > 1:
            return relate(maps, self._concavities(present), self._settings.threshold, self._to_latent)
        return relate_alike(maps, present, self._k[0], self._settings.threshold, self._to_latent)

    def _concavities(self, present: Tensor) -> Tensor:
        """``[B, T]``, negative where an image does not hold the target."""
        if self._present_k is None or self._present_k[0] is not present:  # it seldom changes from step to step
            self._present_k = present, torch.where(present, self._k, -1.0)
        return self._present_k[1]

    def _nothing(self) -> Relation:
        return everywhere(torch.full((self._images,), -1.0, device=self._device), *self._size)

    def _weights(self, step: int, tokens: int | None, row: Row, context: int) -> Tensor:
        if tokens is None or context % tokens:
            return self._targets.weights(*row, step, context, self._device)
        # A token's attention is that to all its copies together.
        return self._targets.weights(*row, step, tokens, self._device).repeat(context // tokens, 1)


def _precision(device: torch.device) -> torch.dtype:
    """Double, but on Apple's GPUs, which have none."""
    return torch.float32 if device.type == "mps" else torch.float64
