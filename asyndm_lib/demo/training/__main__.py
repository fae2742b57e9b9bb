"""Command line of the training programs: ``python -m asyndm_lib.demo.training STAGE …``."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import types
import typing
from pathlib import Path

MODEL = Path(__file__).resolve().parent.parent / "model"


def add_settings(parser: argparse.ArgumentParser, settings: type) -> None:
    """Add one option to ``parser`` for every field of a settings class."""
    hints = typing.get_type_hints(settings)
    for field in dataclasses.fields(settings):
        kind = hints[field.name]
        if isinstance(kind, types.UnionType):
            kind = next(part for part in kind.__args__ if part is not type(None))
        default = field.default
        if default is dataclasses.MISSING:
            default = {"config": MODEL / "emoji.yaml", "tokenizer": MODEL / "tokenizer", "model": MODEL}.get(field.name)
        option = "--" + field.name.replace("_", "-")
        if kind is bool:
            parser.add_argument(option, action=argparse.BooleanOptionalAction, default=default)
        else:
            parser.add_argument(option, type=kind, default=default, required=default is dataclasses.MISSING or (
                default is None and field.default is dataclasses.MISSING))


def main(arguments: list[str] | None = None) -> None:
    """Parse and run one stage."""
    from . import autoencoder, concepts, dataset, denoiser, evaluate, export, sprites, transformer, vocabulary

    parser = argparse.ArgumentParser(prog="python -m asyndm_lib.demo.training", description=__doc__)
    stages = parser.add_subparsers(dest="stage", required=True)
    one = stages.add_parser("sprites", help="rasterise the emoji of icons.json into one array file")
    one.add_argument("icons", type=Path, help="icons.json of the npm package @iconify-json/fluent-emoji-flat")
    one.add_argument("output", type=Path)
    one.add_argument("--unseen", action="store_true", help="also those that training leaves out, to count them")
    one = stages.add_parser("tokenizer", help="write the tokenizer folder with CLIP's first merges")
    one.add_argument("merges", type=Path, help="merges.txt of a CLIP tokenizer")
    one.add_argument("--output", type=Path, default=MODEL / "tokenizer")
    one.add_argument("--count", type=int, default=6000)
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
