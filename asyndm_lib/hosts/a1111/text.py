"""The WebUI's prompts, as its model reads them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from modules import extra_networks, prompt_parser, script_callbacks, sd_hijack_open_clip, sd_models, shared

from ...automatic import named_or_candidates
from ...errors import SettingsError, Unsupported
from ...prompts import PromptTargets, Scheduled, Tokenize
from ...settings import Settings
from ...targets import Target, named_targets, tagged
from ...tokens import Token
from .models import check_model

MAX_BRACKETS = 200
"""Of prompt editing that is read while a person types: the host's parser takes seconds for more."""

_TAG = re.compile(r"<asyn:[^>]+>")
_PRIVATE = 0xF0000
"""The first of 65,534 characters that mean nothing."""


class TypedPrompt(NamedTuple):
    """``parts``: the ``AND`` parts. ``tags``: the target list that the prompt's tags make."""

    parts: list[Scheduled]
    tags: str
    tokenize: Tokenize


def typed_prompt(prompt: str, steps: int, styles: Sequence[str]) -> TypedPrompt:
    """A prompt as it would be read if a picture of ``steps`` steps were begun now; only reads.

    Raises :class:`Unsupported` while there is no model to read it, :class:`SettingsError` for one too intricate.
    """
    sd_model = sd_models.model_data.sd_model  # shared.sd_model would load one
    if sd_model is None:
        raise Unsupported("no model is loaded; load a checkpoint and ask again")
    try:
        check_model(sd_model)
        tokenize = tokenizer(sd_model)
    except (AttributeError, StopIteration):
        raise Unsupported("the model is being loaded; ask again in a moment") from None
    prompt = shared.prompt_styles.apply_styles_to_prompt(prompt, styles)
    text, tags = _as_sent(prompt, steps)
    (indexes,), flat, _ = prompt_parser.get_multicond_prompt_list([text])
    if "[" not in text:
        schedules = [[(steps, part)] for part in flat]
    elif sum(map(text.count, "()[]|:")) > MAX_BRACKETS:
        raise SettingsError(f"the prompt has more than {MAX_BRACKETS} brackets, bars and colons")
    else:
        try:
            schedules = prompt_parser.get_learned_conditioning_prompt_schedules(
                flat, steps, use_old_scheduling=shared.opts.use_old_scheduling
            )
        except RecursionError:
            raise SettingsError("the prompt's brackets are nested too deeply") from None
    return TypedPrompt([schedules[index] for index, _ in indexes], tags, tokenize)


def _as_sent(prompt: str, steps: int) -> tuple[str, str]:
    """The text that is encoded of a typed prompt, and the target list that its tags make."""
    tags: list[str] = []

    def hidden(tag: re.Match[str]) -> str:
        tags.append(tag[0])
        return chr(_PRIVATE + len(tags) - 1)

    # The host's own way of taking out comments, for one. Tags are hidden from it: they may hold a comment's #.
    params = script_callbacks.BeforeTokenCounterParams(_TAG.sub(hidden, prompt), steps, [])
    script_callbacks.before_token_counter_callback(params)
    marks = {chr(_PRIVATE + n): tag for n, tag in enumerate(tags)}
    left = "".join(marks.get(char, "") for char in params.prompt)
    text, _ = extra_networks.parse_prompt("".join(char for char in params.prompt if char not in marks))
    return text, tagged(left)


def prompt_targets(p: Any, settings: Settings) -> PromptTargets:
    """The target words in the prompts of the coming sampling call of ``p`` (a ``StableDiffusionProcessing``).

    Those to choose from, where none are named; hires fix's second pass keeps what the first one chose for its prompt.
    """
    hires = getattr(p, "is_hr_pass", False)
    prompts = p.hr_prompts if hires else p.prompts
    steps = {"base_steps": p.firstpass_steps}
    if hires:
        steps["hires_steps"] = p.sampler.config.total_steps(p.hr_second_pass_steps or p.steps)
    indexes, flat, _ = prompt_parser.get_multicond_prompt_list(prompts)
    schedules = prompt_parser.get_learned_conditioning_prompt_schedules(
        flat, **steps, use_old_scheduling=shared.opts.use_old_scheduling
    )
    parts: list[list[Scheduled]] = [[schedules[index] for index, _ in parts] for parts in indexes]
    # The host has taken the tags out of the batch's prompts; it keeps them in those of the whole job.
    first = p.iteration * p.batch_size
    typed = (p.all_hr_prompts if hires else p.all_prompts)[first : first + len(prompts)]
    named = [named_targets(settings.targets, prompt) for prompt in typed]
    if hires and p.hr_prompts == p.prompts:
        chosen = [p.asyndm_chosen.get(first + image, ()) for image in range(len(prompts))]
        named = [own or tuple(map(Target, words)) for own, words in zip(named, chosen, strict=True)]
    return named_or_candidates(named, parts, tokenizer(shared.sd_model))


def tokenizer(sd_model: Any) -> Callable[[str], list[Token]]:
    """The model's own tokenization: emphasis, ``BREAK``, chunks and textual inversions as the host encodes them."""
    conditioner = sd_model.cond_stage_model
    text = next(e for e in getattr(conditioner, "embedders", [conditioner]) if hasattr(e, "process_texts"))
    ending = {index for word, index in _vocabulary(text).items() if word.endswith("</w>")}

    def tokenize(line: str) -> list[Token]:
        (chunks,), _ = text.process_texts([line])
        return [token for number, chunk in enumerate(chunks) for token in _chunk(chunk, number)]

    def _chunk(chunk: Any, number: int) -> Iterator[Token]:
        start = number * len(chunk.tokens)
        inversions = {
            1 + fix.offset + n: (fix.embedding.name, n == int(fix.embedding.vectors) - 1)
            for fix in chunk.fixes
            for n in range(int(fix.embedding.vectors))
        }
        for at, key in enumerate(chunk.tokens[1:], start=1):
            if at in inversions:
                name, last = inversions[at]
                yield Token(name, start + at, last)
            elif key == text.id_end:
                return
            else:
                yield Token(key, start + at, key in ending)

    return tokenize


def _vocabulary(text: Any) -> dict[str, int]:
    """Token → id. OpenCLIP's tokenizer (SD 2, XL's refiner) stands in the host's module, CLIP's beside the encoder."""
    if hasattr(text, "tokenizer"):
        return text.tokenizer.get_vocab()
    return sd_hijack_open_clip.tokenizer.encoder
