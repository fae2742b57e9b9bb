"""Candidates: the words of a prompt that may name a thing.

A run chooses its targets from them (:mod:`asyndm_lib.masks.choice`) where a person named none.
"""

from __future__ import annotations

from collections.abc import Sequence

from .prompt_targets import PromptTargets, Scheduled, Tokenize
from .target_list import MAX_TARGETS, Target
from .token_search import UNREAD, Spelling, find
from .word_lists import things


def named_or_candidates(
    named: Sequence[Sequence[Target]], prompts: Sequence[Sequence[Scheduled]], tokenize: Tokenize
) -> PromptTargets:
    """The targets of a batch: each image's own ``named`` ones, or its candidates where it has none.

    ``prompts``: per image its ``AND`` parts.
    """
    own = [targets or candidates(parts, tokenize) for targets, parts in zip(named, prompts, strict=True)]
    together = tuple(dict.fromkeys(target for targets in own for target in targets))
    automatic = frozenset(image for image, targets in enumerate(named) if not targets)
    return PromptTargets(together, prompts, tokenize, [frozenset(targets) for targets in own], automatic)


def only_named(
    named: Sequence[Sequence[Target]], prompts: Sequence[Sequence[Scheduled]], tokenize: Tokenize
) -> PromptTargets | None:
    """The targets of a batch in which no word is to be chosen: the ``named`` ones of each image.

    None if no image has any. ``prompts``: per image its ``AND`` parts.
    """
    together = tuple(dict.fromkeys(target for targets in named for target in targets))
    return PromptTargets(together, prompts, tokenize, [frozenset(targets) for targets in named]) if together else None


def candidates(parts: Sequence[Scheduled], tokenize: Tokenize) -> tuple[Target, ...]:
    """The candidates in one image's prompt, at most ``MAX_TARGETS``.

    ``parts``: its ``AND`` parts. The words of the first text come first, then what prompt editing
    brings in. A word that the tokenizer does not find in its own text is left out, and so is one
    that the model does not read.
    """
    words: dict[str, str] = {}
    for text in dict.fromkeys(text for part in parts for _, text in part):
        spelling = None
        for word in things(text):
            if len(words) == MAX_TARGETS:
                break
            if word.casefold() not in words:
                spelling = spelling or Spelling([t for t in tokenize(text) if t.position != UNREAD])
                # The tokenizer may cut elsewhere, as within the name of a textual inversion.
                if find([spelling], Spelling(tokenize(word)), Target(word)).occurrences:
                    words[word.casefold()] = word
    return tuple(map(Target, words.values()))
