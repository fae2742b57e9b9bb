"""The WebUIs' prompts, as their models read them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from modules import extra_networks, prompt_parser, script_callbacks, sd_models, shared

from ...errors import SettingsError, Unsupported
from ...prompt.candidates import named_or_candidates, only_named
from ...prompt.prompt_targets import PromptTargets, Scheduled, Tokenize
from ...prompt.report import ROWS
from ...prompt.target_list import Target, named_targets, replace_tags, tagged
from ...prompt.token_search import Token
from ...prompt.vocabulary import as_written, text_token
from ...settings.settings import WORDS, Settings
from .pieces import Region
from .task import EarlierChoice
from .untouched import is_replaced, untouched

_PARSER = untouched(prompt_parser)
"""The host's reading of prompts, for questions that may come while a picture is made.

Other extensions replace functions of the host's own, and theirs may keep what the picture in the
making needs.
"""

_OTHER_AND = re.compile(r"\bAND_[A-Z]+\b")
"""The words that other extensions read like ``AND``, as Neutral Prompt's ``AND_PERP``."""

MAX_BRACKETS = 200
"""The most brackets of prompt editing that are read while a person types.

The host's parser takes seconds for more.
"""

_PRIVATE = 0xF0000
"""The first of 65,534 characters that mean nothing."""


class TypedPrompt(NamedTuple):
    """A prompt in which no picture is made yet.

    ``parts``: its ``AND`` parts. ``tags``: the target lists in its tags. ``tokenize``: the
    tokenization of the model that is loaded. ``chunk``: the length of the chunks that it cuts a
    prompt into; None if it does not.
    """

    parts: list[Scheduled]
    tags: list[str]
    tokenize: Tokenize
    chunk: int | None


@dataclass(frozen=True)
class Reader:
    """Reads prompts as the models of one host do.

    ``tokenizer``: a model of the host → its tokenization. ``chunk``: a model → see
    :class:`TypedPrompt`. ``check_model`` raises
    :class:`Unsupported` for a model that cannot run on sigma maps. ``is_loaded``: whether the
    host's model is more than a stand-in, and ``loading``: what loads one. ``without_comments``
    takes comments out of a prompt, where the host does it neither with the styles nor in its
    callbacks. ``regions``: a sampling call → the parts of its pictures that have prompts of their
    own.
    """

    tokenizer: Callable[[Any], Tokenize]
    check_model: Callable[[Any], None]
    is_loaded: Callable[[Any], bool]
    loading: str
    without_comments: Callable[[str], str] = str
    regions: Callable[[Any], Sequence[Region]] = lambda p: ()
    chunk: Callable[[Any], int | None] = lambda sd_model: ROWS

    def typed_prompt(self, prompt: str, steps: int, styles: Sequence[str]) -> TypedPrompt:
        """A prompt as it would be read if a picture of ``steps`` steps were begun now; only reads.

        Raises :class:`Unsupported` while there is no model to read it, :class:`SettingsError` for
        one too intricate.
        """
        sd_model = sd_models.model_data.sd_model  # shared.sd_model would load one
        if not self.is_loaded(sd_model):
            raise Unsupported(f"no model is loaded; {self.loading} and ask again")
        try:
            self.check_model(sd_model)
            tokenize = self.tokenizer(sd_model)
        except (AttributeError, StopIteration):
            raise Unsupported("the model is being loaded; ask again in a moment") from None
        text, tags = _as_sent(prompt, steps, styles, self.without_comments)
        return TypedPrompt(_parts(text, steps), tags, tokenize, self.chunk(sd_model))

    def prompt_targets(
        self, p: Any, settings: Settings, chosen: EarlierChoice, regions: Sequence[Region]
    ) -> PromptTargets | None:
        """The target words in the prompts of the coming sampling call of the host's ``p``.

        Where none are named they are those to choose from; with a mask by hand there are none then,
        and None where no image has any. Hires fix's second pass keeps what the first one chose for
        its prompt, by ``chosen``. The prompts of ``regions`` count as further ``AND`` parts.
        """
        hires = getattr(p, "is_hr_pass", False)
        prompts = p.hr_prompts if hires else p.prompts
        steps = {"base_steps": p.firstpass_steps}
        if hires:
            steps["hires_steps"] = p.sampler.config.total_steps(p.hr_second_pass_steps or p.steps)
        parts = _scheduled(prompts, **steps)
        for region in regions:
            for own, of_region in zip(parts, _scheduled(region.prompts, **steps), strict=False):
                own += of_region
        # The host has taken the tags out of the batch's prompts, not out of those of the whole job.
        first = p.iteration * p.batch_size
        typed = (p.all_hr_prompts if hires else p.all_prompts)[first : first + len(prompts)]
        own_tags = [region.typed for region in regions]
        named = [named_targets(settings.targets, " ".join([prompt, *own_tags])) for prompt in typed]
        if hires and p.hr_prompts == p.prompts:
            kept = [chosen.get(first + image, ()) for image in range(len(prompts))]
            named = [own or tuple(map(Target, words)) for own, words in zip(named, kept, strict=True)]
        find = named_or_candidates if settings.region == WORDS else only_named
        return find(named, parts, self.tokenizer(p.sd_model))


def _scheduled(prompts: Sequence[str], **steps: int) -> list[list[Scheduled]]:
    """The ``AND`` parts of each of ``prompts``, with their prompt editing."""
    indexes, flat, _ = prompt_parser.get_multicond_prompt_list(prompts)
    schedules = prompt_parser.get_learned_conditioning_prompt_schedules(flat, **steps, **_scheduling())
    return [[schedules[index] for index, _ in parts] for parts in indexes]


def _parts(text: str, steps: int) -> list[Scheduled]:
    """The ``AND`` parts of a prompt that is read while a person types."""
    if is_replaced(prompt_parser, "get_multicond_prompt_list"):
        text = _OTHER_AND.sub("AND", text)
    (indexes,), flat, _ = _PARSER.get_multicond_prompt_list([text])
    if "[" not in text:
        schedules = [[(steps, part)] for part in flat]
    elif sum(map(text.count, "()[]|:")) > MAX_BRACKETS:
        raise SettingsError(f"the prompt has more than {MAX_BRACKETS} brackets, bars and colons")
    else:
        try:
            schedules = _PARSER.get_learned_conditioning_prompt_schedules(flat, steps, **_scheduling())
        except RecursionError:
            raise SettingsError("the prompt's brackets are nested too deeply") from None
    return [schedules[index] for index, _ in indexes]


def _as_sent(
    prompt: str, steps: int, styles: Sequence[str], without_comments: Callable[[str], str]
) -> tuple[str, list[str]]:
    """A typed prompt → the text of it that is encoded, and the target lists in its tags."""
    tags: list[str] = []

    def hidden(tag: str) -> str:
        tags.append(tag)
        return chr(_PRIVATE + len(tags) - 1)

    # Tags are hidden from the host's own ways of taking out comments: they may hold a comment's #.
    # Some hosts do it where they apply the styles, others in their callbacks.
    styled = shared.prompt_styles.apply_styles_to_prompt(replace_tags(prompt, hidden), styles)
    params = script_callbacks.BeforeTokenCounterParams(replace_tags(styled, hidden), steps, [])
    script_callbacks.before_token_counter_callback(params)
    sent = without_comments(params.prompt)
    marks = {chr(_PRIVATE + n): tag for n, tag in enumerate(tags)}
    left = "".join(marks.get(char, "") for char in sent)
    text = "".join(char for char in sent if char not in marks)
    return extra_networks.re_extra_net.sub("", text), tagged(left)


def _scheduling() -> dict[str, bool]:
    """The host's option for how prompt editing counts steps, where it has one."""
    old = getattr(shared.opts, "use_old_scheduling", None)
    return {} if old is None else {"use_old_scheduling": old}


def text_encoder(sd_model: Any) -> Any:
    """The first text encoder of AUTOMATIC1111's or reForge's model that cuts a text into tokens.

    Where there are two they cut it alike. Raises :class:`StopIteration` if there is none yet.
    """
    conditioner = sd_model.cond_stage_model
    return next(part for part in getattr(conditioner, "embedders", [conditioner]) if hasattr(part, "process_texts"))


def tokenizer(text: Any, vocabulary: Mapping[str, int]) -> Callable[[str], list[Token]]:
    """The model's own tokenization.

    Emphasis, ``BREAK``, chunks and textual inversions are read as the host encodes them.
    ``text``: the host's text encoder, with ``process_texts`` and ``tokenize``. ``vocabulary``: its
    tokens and their ids.
    """
    names = {index: name for name, index in vocabulary.items()}

    def tokenize(line: str) -> list[Token]:
        (chunks,), _ = text.process_texts([line])
        tokens = [token for number, chunk in enumerate(chunks) for token in _chunk(chunk, number)]
        # Emphasis stands between words as a blank does.
        parts = [part for part, weight in prompt_parser.parse_prompt_attention(line) if (part, weight) != ("BREAK", -1)]
        words = " ".join(parts).split()
        return as_written(tokens, text.tokenize(words) if words else [])

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
                yield text_token(key, start + at, names[key])

    return tokenize
