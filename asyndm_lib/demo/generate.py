"""The ``generate`` command: three pictures of one seed, and what AsynDM did while making them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from ..errors import AsynDMError, SettingsError, TargetError, TooFewSteps
from ..hosts.standalone.embedded import SYNCHRONOUS, Embedded, Request
from ..hosts.standalone.ldm_checkpoint import load
from ..pictures.film import Film
from ..pictures.painting import of_file
from ..prompt.suggestions import question
from ..prompt.target_list import parse_targets
from ..settings.settings import EVERYWHERE, INTERSECTION, PAINTED, WORDS, Settings
from . import EMBEDDED, outputs
from .device import device_of
from .sheet import Picture, SeedSection, draw

MOMENTS = 6
"""How many steps the sheet shows."""


def generate(options: argparse.Namespace) -> None:
    """Make the pictures, write the sheet, and print its path. ``options`` come from
    :mod:`asyndm_lib.cli`.

    Raises :class:`AsynDMError` for anything that is wrong with them.
    """
    settings = Settings(
        **{f.name: getattr(options, f.name) for f in EVERYWHERE}, region=PAINTED if options.mask else WORDS
    )
    painted = None if options.mask is None else _painted(options.mask)
    if painted is not None and settings.whole_picture:
        raise AsynDMError("--mask and --whole-picture do not go together: name one of them")
    seeds = range(options.seed, options.seed + options.batch)
    request = Request(seeds=seeds, **{f.name: getattr(options, f.name) for f in fields(Request) if f.name != "seeds"})
    device = device_of(options.device)
    outputs.check_picture(options.out, "--out")
    if options.images is not None:
        outputs.check_folder(options.images, "--images")
    checkpoint = load(options.checkpoint or EMBEDDED[options.model], options.config, device)
    host = Embedded(checkpoint)
    host.check(request)
    found = _check_targets(host, request, settings)
    try:
        host.check_run(request, settings, painted)
    except TooFewSteps as error:
        _warn(str(error))

    named = ", ".join(str(target) for target in parse_targets(settings.targets)) if found else ""
    if painted is not None:
        named = f"painted {'and' if settings.with_words == INTERSECTION else 'or'} {named}" if named else "painted"
    variants = [
        Variant("ordinary", "as the model makes it", SYNCHRONOUS),
        Variant(
            "whole picture slowed",
            f"everything lags alike, concavity {settings.concavity:g}",
            replace(settings, whole_picture=True),
        ),
    ]
    if not settings.whole_picture:
        variants.append(Variant("AsynDM", f"slowed: {named}", settings))
    made, film = [], Film((), MOMENTS)
    for variant in variants:
        film.clear()  # the sheet shows the last one's
        by_hand = None if variant.settings.whole_picture else painted
        made.append(_pictures(host, request, variant, film, by_hand))

    sections = []
    for n, seed in enumerate(seeds):
        sections.append(SeedSection(f"seed {seed}", [pictures[n] for pictures in made], film.reel(n).frames))
    picture = draw(options.prompt, _lines(request, settings, checkpoint.name), sections)
    for section in sections:
        for one in section.pictures if options.images else ():
            name = f"{section.label} {one.name}.png".replace(" ", "-").lower()
            Image.fromarray(one.pixels).save(options.images / name)
    print(_saved(picture, options.out))


def _saved(picture: Image.Image, path: Path) -> Path:
    """Write the sheet, and return where it is. One that is too long for the format is written as
    PNG."""
    try:
        picture.save(path)
    except (OSError, ValueError) as error:
        instead = path.with_suffix(".png")
        if instead == path:
            raise
        picture.save(instead)
        _warn(f"{path} could not be written ({error}); the sheet is {instead}")
        return instead
    return path


@dataclass(frozen=True)
class Variant:
    """One way to make the picture."""

    name: str
    caption: str
    settings: Settings


def _pictures(
    host: Embedded, request: Request, variant: Variant, film: Film, painted: Tensor | None
) -> list[Picture]:
    """One picture per seed. Words that AsynDM chose by itself are printed and stand in the
    caption."""

    def progress(steps: Iterable[int]) -> Iterable[int]:
        return tqdm(steps, desc=f"{variant.name:10}", disable=None)

    chosen: list[Sequence[str] | None] = []
    latents = host.sample(request, variant.settings, progress, [film], chosen.extend, painted, _warn)
    pixels = host.decode(latents)
    pictures = []
    for seed, words, own in zip(request.seeds, chosen, pixels, strict=True):
        if words is None:
            pictures.append(Picture(variant.name, variant.caption, own))
        else:
            print(f"seed {seed}: chose {', '.join(words)}")
            pictures.append(Picture(variant.name, f"slowed, chosen by itself: {', '.join(words)}", own))
    return pictures


def _warn(text: str) -> None:
    print(f"asyndm: warning: {text}", file=sys.stderr)


def _painted(file: Path) -> Tensor:
    """The painted pixels of a mask in a file, bool ``[H, W]``."""
    try:
        painted = torch.from_numpy(of_file(file.read_bytes()))
    except OSError as error:
        raise AsynDMError(f"--mask {file}: {error.strerror or error}") from error
    except SettingsError as error:
        raise AsynDMError(f"--mask {file}: {error}") from error
    if not painted.any():
        raise AsynDMError(f"--mask {file}: nothing is painted in it, in white or opaque")
    return painted


def _check_targets(host: Embedded, request: Request, settings: Settings) -> bool:
    """Warn of targets that are not in the prompt; whether any is.

    Raises :class:`TargetError` if none is in it where they are needed, or if none can be chosen.
    """
    targets = host.targets(request, settings)
    if targets and not targets.targets:
        raise TargetError(f"no word of {request.prompt!r:.80} names a thing (name --targets, or add --whole-picture)")
    missing = targets.missing() if targets else []
    if not missing:
        return targets is not None
    names = ", ".join(f"{str(target)!r:.40}" for target in missing)
    meant = question(missing, [request.prompt])
    if len(missing) == len(targets.targets):
        if settings.region == PAINTED:
            _warn(f"not in the prompt, so the mask alone counts: {names}{meant}")
            return False
        raise TargetError(f"no target is in the prompt: {names} not found in {request.prompt!r:.80}{meant}")
    _warn(f"not in the prompt, ignored: {names}{meant}")
    return True


def _lines(request: Request, settings: Settings, model: str) -> list[str]:
    """The lines that say what the pictures were made with."""
    by_hand = settings.region == PAINTED
    otherwise = "none" if by_hand else "chosen by itself"
    named = settings.targets.strip() if parse_targets(settings.targets) else otherwise
    method = ["painted mask"] if by_hand else []
    method += ["whole picture" if settings.whole_picture else f"targets: {named}"]
    for f in EVERYWHERE:
        if f.name not in ("targets", "whole_picture") and (f.name != "with_words" or (by_hand and named != "none")):
            method.append(f"{f.metadata['label'].lower()} {getattr(settings, f.name)}")
    picture = [model, f"{request.sampler}, {request.steps} steps, {request.schedule} schedule", f"CFG {request.cfg:g}"]
    if request.eta is not None:
        picture.append(f"eta {request.eta:g}")
    picture.append(f"{request.width}x{request.height}")
    if request.negative:
        picture.append(f"without: {request.negative}")
    return [" · ".join(method), " · ".join(picture)]
