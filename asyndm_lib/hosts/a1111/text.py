"""The WebUI's prompts, as its model reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from modules import prompt_parser, sd_hijack_open_clip, shared

from ...prompts import PromptTargets, Scheduled
from ...settings import Settings
from ...targets import parse_targets, tagged
from ...tokens import Token


def prompt_targets(p: Any, settings: Settings) -> PromptTargets:
    """The target words in the prompts of the coming sampling call of ``p`` (a ``StableDiffusionProcessing``)."""
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
    named = [parse_targets(f"{settings.targets}, {tagged(prompt)}") for prompt in typed]
    targets = tuple(dict.fromkeys(target for own in named for target in own))
    return PromptTargets(targets, parts, tokenizer(shared.sd_model), [frozenset(own) for own in named])


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
