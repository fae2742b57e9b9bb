"""The ``generate`` command: three pictures of one seed, and what AsynDM did on its way."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from ..clock import Relation
from ..errors import AsynDMError, SettingsError, TargetError
from ..hosts.embedded import SYNCHRONOUS, Embedded, Request
from ..hosts.ldm_checkpoint import load
from ..settings import EVERYWHERE, Settings
from ..sigma_map import SigmaMap
from ..targets import parse_targets
from .sheet import Block, Moment, Picture, draw

MOMENTS = 6
"""How many steps the sheet shows."""


def generate(options: argparse.Namespace) -> None:
    """Make the pictures, write the sheet, and print its path; ``options`` are those of :mod:`cli`.

    Raises :class:`AsynDMError` for whatever is wrong with them.
    """
    settings = Settings(**{f.name: getattr(options, f.name) for f in EVERYWHERE})
    if not settings.whole_picture and not parse_targets(settings.targets):
        raise TargetError(f"--targets {settings.targets!r:.80} names no word of the prompt (or add --whole-picture)")
    seeds = range(options.seed, options.seed + options.batch)
    request = Request(seeds=seeds, **{f.name: getattr(options, f.name) for f in fields(Request) if f.name != "seeds"})
    device = _device(options.device)
    _check_writable(options.out, options.images)
    checkpoint = load(options.checkpoint, options.config, device)
    host = Embedded(checkpoint)
    host.check(request)
    _check_targets(host, request, settings)

    words = ", ".join(str(target) for target in parse_targets(settings.targets))
    variants = [
        Variant("DM", "all pixels on one clock", SYNCHRONOUS),
        Variant("DM_concave", f"every pixel lags, k = {settings.concavity:g}", replace(settings, whole_picture=True)),
    ]
    if not settings.whole_picture:
        variants.append(Variant("AsynDM", f"lagging: {words}", settings))
    pictures, watch = [], Watch()
    for variant in variants:
        watch.steps.clear()  # the sheet shows the last one's
        pictures.append(_pictures(host, request, variant, watch))

    blocks = []
    for n, seed in enumerate(seeds):
        row = [Picture(v.name, v.caption, batch[n]) for v, batch in zip(variants, pictures, strict=True)]
        blocks.append(Block(f"seed {seed}", row, watch.moments(n)))
    picture = draw(options.prompt, _lines(request, settings, checkpoint.name), blocks)
    try:
        picture.save(options.out)
        for block in blocks:
            for one in block.pictures if options.images else ():
                name = f"{block.label} {one.name}.png".replace(" ", "-").lower()
                Image.fromarray(one.pixels).save(options.images / name)
    except (OSError, ValueError) as error:
        raise AsynDMError(f"the pictures cannot be written: {error}") from error
    print(options.out)


@dataclass(frozen=True)
class Variant:
    """One way to make the picture."""

    name: str
    caption: str
    settings: Settings


class Watch:
    """Keeps the timesteps and masks of every step of a run."""

    def __init__(self) -> None:
        self.steps: list[tuple[float, Tensor, Tensor | None]] = []

    def __call__(self, i: int, sigma: SigmaMap, relation: Relation | None) -> None:
        """An observer of :class:`run.Run`."""
        timesteps = torch.take(sigma.timesteps, sigma.index)[:, 0].cpu()
        self.steps.append((sigma.scalar.item(), timesteps, relation and relation.related[:, 0].cpu()))

    def moments(self, image: int) -> list[Moment]:
        """Evenly spaced steps of one image, the first one among them, but not the end, where all pixels meet."""
        moments = []
        for i in sorted({round(n * (len(self.steps) - 1) / MOMENTS) for n in range(MOMENTS)}):
            sigma, timesteps, related = self.steps[i]
            mask = torch.zeros_like(timesteps[image], dtype=torch.bool) if related is None else related[image]
            moments.append(Moment(f"step {i + 1} of {len(self.steps)}", sigma, timesteps[image].numpy(), mask.numpy()))
        return moments


def _pictures(host: Embedded, request: Request, variant: Variant, watch: Watch) -> np.ndarray:
    def progress(steps: Iterable[int]) -> Iterable[int]:
        return tqdm(steps, desc=f"{variant.name:10}", disable=None)

    return host.decode(host.sample(request, variant.settings, progress, watch))


def _device(name: str | None) -> torch.device:
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise SettingsError(f"--device {name!r:.40} is unknown; it must be cpu or cuda")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise SettingsError(f"--device {name!r}: torch finds no such GPU")
    return device


def _check_writable(out: Path, images: Path | None) -> None:
    """Before any work: make the folders and see that the sheet can be written."""
    if out.suffix.lower() not in Image.registered_extensions():
        raise AsynDMError(f"--out {out}: {out.suffix or 'no ending'} is no picture format; use .png")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if images is not None:
            images.mkdir(parents=True, exist_ok=True)
        new = not out.exists()
        with out.open("ab"):
            pass
        if new:
            out.unlink()
    except OSError as error:
        raise AsynDMError(f"cannot write {error.filename or out}: {error.strerror or error}") from error


def _check_targets(host: Embedded, request: Request, settings: Settings) -> None:
    """Name the targets that are not in the prompt; raise :class:`TargetError` if none is."""
    targets = host.targets(request, settings)
    missing = targets.missing() if targets else []
    if not missing:
        return
    names = ", ".join(f"{str(target)!r:.40}" for target in missing)
    if len(missing) == len(targets.targets):
        raise TargetError(f"no target is in the prompt: {names} not found in {request.prompt!r:.80}")
    print(f"asyndm: warning: not in the prompt, ignored: {names}", file=sys.stderr)


def _lines(request: Request, settings: Settings, model: str) -> list[str]:
    """What the pictures were made with."""
    method = ["whole picture" if settings.whole_picture else f"targets: {settings.targets.strip()}"]
    for f in EVERYWHERE:
        if f.name not in ("targets", "whole_picture"):
            method.append(f"{f.metadata['label'].lower()} {getattr(settings, f.name)}")
    picture = [model, f"{request.sampler}, {request.steps} steps, {request.schedule} schedule", f"CFG {request.cfg:g}"]
    if request.eta is not None:
        picture.append(f"eta {request.eta:g}")
    picture.append(f"{request.width}x{request.height}")
    if request.negative:
        picture.append(f"without: {request.negative}")
    return [" · ".join(method), " · ".join(picture)]
