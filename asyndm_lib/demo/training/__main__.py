"""Command line of the training programs: ``python -m asyndm_lib.demo.training STAGE …``."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ...errors import AsynDMError
from .. import outputs, program
from ..device import device_of
from ..program import number, whole

MODEL = Path(__file__).resolve().parent.parent / "model"
DEFAULTS = {"config": MODEL / "emoji.yaml", "tokenizer": MODEL / "tokenizer", "model": MODEL}

_SHARE, _COUNT, _SIZE = number(0, 1), whole(1, 10**8), number(0, 10**6)
LIMITS: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(("batch", "count", "iterations", "prompts", "scenes", "steps"), _COUNT),
    **dict.fromkeys(("depth", "head_size", "hidden_size"), whole(1, 10**5)),
    **dict.fromkeys(("average", "caption_dropout", "decay_from", "detail", "one_level", "pooled_dropout"), _SHARE),
    **dict.fromkeys(("rate", "scenery"), _SHARE),
    **dict.fromkeys(("guidance", "keep_every", "kl", "latent_noise", "lead", "map_ratio", "map_weight"), _SIZE),
    "seconds": number(0.01, 10**7),
    "noisy": number(-10, 10),
    "seed": whole(0, 2**32 - 1),
}
"""How the number of an option is read."""

READ = ("autoencoder", "config", "data", "denoiser", "icons", "merges", "model", "resume", "sprites", "tokenizer")
"""Options that name what a stage reads, but for ``split``, which writes two of them."""


def add_settings(parser: argparse.ArgumentParser, settings: type) -> None:
    """Add one option to ``parser`` for every field of a settings class."""
    hints = typing.get_type_hints(settings)
    for field in dataclasses.fields(settings):
        kind = hints[field.name]
        if isinstance(kind, types.UnionType):
            kind = next(part for part in kind.__args__ if part is not type(None))
        must = field.default is dataclasses.MISSING
        default = DEFAULTS.get(field.name) if must else field.default
        option = "--" + field.name.replace("_", "-")
        if kind is bool:
            parser.add_argument(option, action=argparse.BooleanOptionalAction, default=default)
        else:
            read = LIMITS[field.name] if kind in (int, float) else kind
            parser.add_argument(option, type=read, default=default, required=must and default is None)


def check(stage: str, options: dict[str, Any]) -> None:
    """See that a stage can begin and its results can be written.

    Raises :class:`AsynDMError` that names the option that hinders it.
    """
    if "device" in options:
        device_of(options["device"])
    if options.get("seconds", 1) is None and options.get("iterations") is None:
        raise AsynDMError("give --seconds or --iterations")
    written = {"output", "report"} | ({"autoencoder", "denoiser"} if stage == "split" else set())
    for name, path in options.items():
        option = f"--{name.replace('_', '-')}"
        if path is None:
            continue
        if name == "sheet" or (stage, name) == ("sample", "output"):
            outputs.check_picture(path, option)
        elif name in written:
            (outputs.check_folder if stage == "tokenizer" else outputs.check_file)(path, option)
        elif name in READ and not path.exists() and not (name == "data" and options["wait"]):
            raise AsynDMError(f"{option}: there is no {path}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one stage and return the exit code."""
    return program.run(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> None:
    from . import autoencoder, concepts, dataset, denoiser, evaluate, export, sprites, transformer, vocabulary

    parser = program.Parser(prog="python -m asyndm_lib.demo.training", description=__doc__)
    stages = parser.add_subparsers(dest="stage", required=True)
    one = stages.add_parser("sprites", help="rasterise the emoji of icons.json into one array file")
    one.add_argument("icons", type=Path, help="icons.json of the npm package @iconify-json/fluent-emoji-flat")
    one.add_argument("output", type=Path)
    one.add_argument("--unseen", action="store_true", help="also those that training leaves out, to count them")
    one = stages.add_parser("tokenizer", help="write the tokenizer folder with CLIP's first merges")
    one.add_argument("merges", type=Path, help="merges.txt of a CLIP tokenizer")
    one.add_argument("--output", type=Path, default=MODEL / "tokenizer")
    one.add_argument("--count", type=whole(1, 10**6), default=6000)
    runs = {"vae": (autoencoder.Settings, autoencoder.train, "train the autoencoder, or its decoder alone"),
            "latents": (dataset.Settings, dataset.run, "draw the denoiser's training data"),
            "unet": (denoiser.Settings, denoiser.train, "train UNet and text encoder"),
            "transformer": (transformer.Settings, transformer.train, "train the transformer"),
            "export": (export.Settings, export.run, "write emoji.safetensors and emoji.yaml"),
            "split": (export.SplitSettings, export.split, "take a checkpoint apart, to train on from it"),
            "evaluate": (evaluate.Settings, evaluate.run, "measure pictures and token maps on two-object prompts"),
            "sample": (evaluate.SampleSettings, evaluate.sample, "make pictures of given prompts")}
    for name, (settings, _, text) in runs.items():
        add_settings(stages.add_parser(name, help=text), settings)
    options = vars(parser.parse_args(arguments))
    stage = options.pop("stage")
    del options["given"]
    check(stage, options)
    if stage == "sprites":
        known = concepts.CONCEPTS + (concepts.UNSEEN if options["unseen"] else ())
        sprites.build(options["icons"], options["output"], known)
    elif stage == "tokenizer":
        vocabulary.write_tokenizer(options["merges"], options["output"], options["count"], vocabulary.TEXT_CONFIG)
    else:
        settings, run, _ = runs[stage]
        run(settings(**options))


if __name__ == "__main__":
    sys.exit(main())
