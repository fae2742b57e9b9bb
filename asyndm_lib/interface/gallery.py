"""The sheets of a job: drawn as its pictures are made, shown after them, and saved beside them."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

from modules import images, shared
from PIL import Image

from ..models.parts.patching import replaced
from ..pictures import sheet
from ..pictures.film import Film
from ..prompt.prompt_targets import PromptTargets
from ..settings.settings import EVERYWHERE, INTERSECTION, PAINTED, Settings
from . import job, messages
from .job import Filmed, Sheet

MARK = f", AsynDM sheet: {sheet.TITLE.removeprefix('AsynDM: ')}"
"""The end of a sheet's infotext, which is otherwise its picture's.

The page's JavaScript looks for it.
"""

_font = functools.cache(images.get_font)


def film(p: Any, settings: Settings, targets: PromptTargets | None, by_hand: bool) -> Film | None:
    """The film that is to observe the coming sampling call of ``p``.

    ``by_hand``: whether it has a mask by hand. None if nobody will see the sheet.
    """
    if not settings.show_masks:
        return None
    if job.script_selected(p):
        messages.report(
            p, "the sheets of the masks are saved with the pictures but not shown: the selected script shows its own"
        )
        if not p.save_samples():
            return None
    names = [str(target) for target in targets.targets] if targets else []
    film = Film(names, sheet.FRAMES, _kind(settings, bool(names)) if by_hand else "mask")
    filmed = Filmed(film, settings, getattr(p, "is_hr_pass", False))
    job.update(p, films=(*job.of(p).films, filmed))
    return film


def _kind(settings: Settings, words: bool) -> str:
    """What a mask by hand is called on a sheet; ``words``: whether target words count too."""
    kind = "painted mask" if settings.region == PAINTED else settings.region
    joined = " and words" if settings.with_words == INTERSECTION else " or words"
    return kind + joined if words else kind


def draw(p: Any, picture: Image.Image) -> None:
    """Draw the sheet of ``picture``, just made by ``p``, from the last pass that ran with us."""
    here = job.of(p)
    if not here.asked:
        return
    job.update(p, pictures=here.pictures + 1)
    films = [filmed for filmed in here.films if len(filmed.film)]
    index = p.batch_index
    if not films or index >= len(p.seeds):
        return
    film, settings, second = films[-1]
    own = {
        "all_prompts": p.prompts[index],
        "all_negative_prompts": p.negative_prompts[index],
        "all_seeds": p.seeds[index],
        "all_subseeds": p.subseeds[index],
    }
    made = f"seed {own['all_seeds']}"
    if getattr(p, "enable_hr", False):
        made += " · second pass" if second else " · first pass"
    lines = [own["all_prompts"], " · ".join([made, *_values(settings)])]
    image = sheet.draw(picture, film.reel(index), lines, _font)
    job.update(p, sheets=(*here.sheets, Sheet(image, here.pictures, p.iteration, index, own)))


def show(p: Any, processed: Any) -> None:
    """Put the sheets after the results of a job that is done.

    ``processed``: the host's ``Processed``. Its lists are replaced, not changed: the host shares
    them with ``p``.
    """
    sheets = job.of(p).sheets
    job.forget(p)
    if not sheets or not processed.infotexts:
        return  # ADetailer ends a copy of a job, with no pictures, before that is done
    first, shown = processed.index_of_first_image, len(processed.images)
    texts = processed.infotexts
    own = [texts[min(first + one.number, len(texts) - 1)] + MARK for one in sheets]
    for one, text in zip(sheets, own, strict=True):
        _finish(p, one, text)
    if job.script_selected(p):
        return
    processed.images = [*processed.images, *(one.image for one in sheets)]
    each = _images_each(p)
    processed.infotexts = [*texts[:first], *_spread(texts[first:], each, shown - first), *own]
    for name in sheets[0].own:
        values = _spread(getattr(processed, name), each, shown - first)
        setattr(processed, name, [*values, *(one.own[name] for one in sheets)])


def _finish(p: Any, one: Sheet, text: str) -> None:
    """Give the sheet its infotext, and save it where the host saves the pictures."""
    options, own = shared.opts, one.own
    if options.enable_pnginfo:
        one.image.info["parameters"] = text
    if p.save_samples():
        where = p.outpath_samples, "", own["all_seeds"], own["all_prompts"], options.samples_format
        with replaced(p, "iteration", one.iteration), replaced(p, "batch_index", one.index):  # parts of a file's name
            images.save_image(one.image, *where, info=text, p=p, suffix="-asyndm")


def _images_each(p: Any) -> int:
    """How many images the host shows of each picture: where it inpaints, the mask too, if asked."""
    if getattr(p, "mask_for_overlay", None) is None:
        return 1
    return 1 + shared.opts.return_mask + shared.opts.return_mask_composite


def _spread(values: Sequence[Any], each: int, length: int) -> list[Any]:
    """One value per picture → one per image.

    More images, of other extensions, follow and have the last one's.
    """
    spread = [value for value in values for _ in range(each)][:length]
    return spread + [values[-1]] * (length - len(spread))


def _values(settings: Settings) -> Iterator[str]:
    """The settings that counted, as texts."""
    if settings.by_hand:
        yield f"region {settings.region}"
    for field in EVERYWHERE:
        if field.name == "with_words" and not settings.by_hand:
            continue
        label, value = field.metadata["label"].lower(), getattr(settings, field.name)
        if value is True:
            yield label
        elif value is not False and value != "" and not (settings.whole_picture and field.name == "targets"):
            yield f"{label} {value}"
