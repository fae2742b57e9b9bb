"""Measure which words a run chooses by itself where no targets are named: ``python -m
asyndm_lib.demo.choosing``

The prompts are made like the training captions, from seeds of their own. The rule of the choice was
settled on 80 other prompts of the same kind.
"""

from __future__ import annotations

import random
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from ..hosts.standalone.embedded import Embedded, Request
from ..hosts.standalone.ldm_checkpoint import load
from ..hosts.standalone.text_encoders import tokenize
from ..masks.choice import EVALUATIONS
from ..masks.target_masks import TIMINGS
from ..prompt.prompt_targets import PromptTargets
from ..prompt.target_list import Target
from ..prompt.word_lists import things
from ..settings.settings import Settings
from . import MODEL, program
from .device import device_of
from .program import choice, whole
from .training.captions import Group, compose
from .training.concepts import BACKGROUNDS, CONCEPTS

FIRST_SEED = 1_000_000_000
"""The first prompt's seed. All training captions came from seeds below it."""

WAYS = (("Euler", 12), ("Euler", 20), ("Euler", 30), ("DPM++ 2M", 20))
"""Samplers with their steps. Two prompts each take them in turn."""

UNKNOWN = ("qwertz", "serenity", "justice", "philosophy", "sadness", "zum", "mit", "swirly", "happily", "gracious")
"""Words that name nothing the model can draw, and that stand on none of the core's lists."""

BACKGROUND_WORDS = {"background", *BACKGROUNDS}
KINDS = ("object", "colour of an object", "background", "unknown", "other")
"""The kinds of words. "soccer ball" is two object words; "red heart" is an object's colour and an
object word."""


class LabelledPrompt(NamedTuple):
    """A prompt with the kind of each of its words. ``seed`` is the one that made it."""

    text: str
    words: dict[str, str]
    seed: int


def prompts(count: int, unknown: int) -> Iterator[LabelledPrompt]:
    """Prompts as in training: one to four things, some of them several times, with backgrounds and
    places."""
    for seed in range(FIRST_SEED, FIRST_SEED + count):
        rng = random.Random(seed)
        things = rng.choice((1, 2, 2, 3, 4))
        groups = [
            Group(concept, rng.choice((1, 1, 1, 2, 3)) if things < 3 else 1, index)
            for index, concept in enumerate(rng.sample(range(len(CONCEPTS)), things))
        ]
        background = rng.choice(list(BACKGROUNDS)) if rng.random() < 0.5 else None
        words = compose(groups, background, rng.choice(("left", "right", "above", "below", None)), rng)
        kinds: dict[str, str] = {}
        for at, (word, group) in enumerate(words):
            if word.isalnum():
                named = group >= 0
                last = named and (at + 1 == len(words) or words[at + 1][1] != group)
                adjective = named and not last and word in BACKGROUNDS
                kind = "colour of an object" if adjective else "object" if named else "other"
                if kind == "other" and word in BACKGROUND_WORDS:
                    kind = "background"
                kinds[word] = min(kind, kinds.get(word, kind), key=KINDS.index)
        for _ in range(rng.randint(0, unknown)):
            word = rng.choice(UNKNOWN)
            # Before an article or at the end: elsewhere it would part a name's words.
            at = rng.choice([*(n for n, (w, _) in enumerate(words) if w in ("a", "an", "and", ",")), len(words)])
            words.insert(at, (word, -1))
            kinds[word] = "unknown"
        text = " ".join(word for word, _ in words).replace(" ,", ",").replace(" .", ".")
        yield LabelledPrompt(text, kinds, seed)


class Tally:
    """How many words of each kind there were, and how many of them were chosen."""

    def __init__(self) -> None:
        self._all, self._chosen = Counter(), Counter()

    def add(self, words: dict[str, str], chosen: Iterable[str]) -> None:
        chosen = set(chosen)
        for word, kind in words.items():
            self._all[kind] += 1
            self._chosen[kind] += word in chosen

    def __str__(self) -> str:
        others = [kind for kind in KINDS[1:] if kind in self._all]
        parts = [self._share("object", ["object"]), self._share("all others", others)]
        return "; ".join([*parts, *(self._share(kind, [kind]) for kind in others)])

    def _share(self, name: str, kinds: list[str]) -> str:
        chosen, every = (sum(counter[kind] for kind in kinds) for counter in (self._chosen, self._all))
        return f"{name} {chosen}/{every} ({chosen / max(every, 1):.1%})"


class EveryWord(Embedded):
    """A host for which every word is a candidate, whatever the lists say."""

    def targets(self, request: Request, settings: Settings) -> PromptTargets:
        words = dict.fromkeys(re.findall(r"\w+", request.prompt))
        prompts = [[[(0, request.prompt)]]] * len(request.seeds)
        automatic = frozenset(range(len(prompts)))
        return PromptTargets(
            tuple(map(Target, words)), prompts, lambda text: tokenize(self._model.text, text), None, automatic
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and return the exit code."""
    return program.run(lambda: _measure(arguments))


def _measure(arguments: Sequence[str] | None) -> None:
    """Print the shares: as the extension chooses, by its word lists alone, and by the token maps
    alone."""
    parser = program.Parser(prog="python -m asyndm_lib.demo.choosing", description=_measure.__doc__)
    add = parser.add_argument
    add("--prompts", type=whole(1, 10**6), default=200, metavar="N", help="how many")
    add("--unknown", type=whole(0, 20), default=0, metavar="N", help="at most so many unknown words are put into each")
    add("--timing", type=choice(tuple(TIMINGS), "mask timing"), default="lagged", help=", ".join(TIMINGS))
    add("--device", default="cpu", help="cpu or cuda")
    options = parser.parse_args(arguments)
    checkpoint = load(MODEL, None, device_of(options.device))
    host, every_word = Embedded(checkpoint), EveryWord(checkpoint)
    method = Settings(mask_timing=options.timing)
    tallies: defaultdict[str, Tally] = defaultdict(Tally)

    for number, prompt in enumerate(prompts(options.prompts, options.unknown)):
        sampler, steps = WAYS[number // 2 % len(WAYS)]
        request = Request(prompt.text, "", [prompt.seed % 2**32], sampler, "automatic", steps, 4.5, 256, 256)
        chosen = _chosen(host, request, method)
        tallies["words and maps"].add(prompt.words, chosen)
        tallies[f"words and maps, {sampler} {steps}"].add(prompt.words, chosen)
        tallies["words alone"].add(prompt.words, things(prompt.text))
        tallies["maps alone"].add(prompt.words, _chosen(every_word, request, method))
    for way, found in sorted(tallies.items()):
        print(f"{way}: {found}")


def _chosen(host: Embedded, request: Request, method: Settings) -> list[str]:
    """The words that a run chooses. The run is stopped where the choice is made."""
    chosen: list = []
    host.sample(request, method, lambda steps: islice(steps, EVALUATIONS), chose=chosen.extend)
    return [word for words in chosen for word in words or ()]


if __name__ == "__main__":
    sys.exit(main())
