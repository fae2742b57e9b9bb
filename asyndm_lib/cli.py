"""The command line: its options, and one line of text for everything that a person can get
wrong."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from . import __version__
from .demo import EMBEDDED, MODEL, program
from .demo.program import Parser, choice, known, meant, number, whole
from .errors import AsynDMError
from .hosts.standalone.schedules import SCHEDULES
from .samplers.labels import NEO, WEBUIS
from .settings.settings import EVERYWHERE

SAMPLERS = tuple(dict.fromkeys([*WEBUIS, *NEO]))

BENCH_MODELS = (
    *("embedded", "embedded transformer", "SD 1.5", "SD 2.1", "SD 2.1 768", "SDXL"),
    *("SD 3.5 medium", "SD 3.5 medium bf16", "Flux.1 dev", "Flux.1 dev fused"),
)
BENCH_SAMPLERS = (
    *("DPM++ 2M", "DPM++ SDE", "DPM++ 2M SDE", "DPM++ 2M SDE Heun", "DPM++ 3M SDE"),
    *("Euler a", "Euler", "Heun"),
)

RESULTS = Path(__file__).parent / "evaluation" / "results.json"
"""The committed results of an evaluation."""

MAX_SIDE, MAX_STEPS, MAX_BATCH, MAX_SEED = 2048, 1000, 16, 2**32 - 1

SAMPLING = frozenset(("sampler", "schedule", "steps", "cfg", "width", "height", "eta"))
SCORERS = ("CLIPScore", "ImageReward", "GenEval", "VQAScore", "BERTScore", "QwenScore")
"""The scorers of ``evaluate`` that take any picture."""

EVALUATIONS: dict[str, frozenset[str]] = {
    "--table": frozenset(("results", "into")),
    "--webui": frozenset(("folder", "device", "prompts", "geneval", "scorers", "count", "seeds", *SAMPLING)),
    "--prompts or --geneval without --webui": frozenset(
        ("folder", "device", "model", "checkpoint", "config", "scorers", "count", "seeds", *SAMPLING)
    ),
    "an evaluation of an embedded model, without --prompts and --webui": frozenset(
        ("folder", "device", "model", "scenery", "two_levels", "deciding", "small", "batch", "minutes", "sheet")
    ),
}
"""What ``evaluate`` can do, and the options that apply to it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code (see :func:`demo.program.run`)."""

    def command() -> None:
        options = parser().parse_args(arguments)
        options.run(options)

    return program.run(command)


def parser() -> argparse.ArgumentParser:
    """The parser of all commands and options."""
    top = Parser(prog="asyndm", description="AsynDM (asynchronous denoising, arXiv 2510.04504) without a WebUI.")
    top.add_argument("--version", action="version", version=f"asyndm {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_generate(commands)
    _add_evaluate(commands)
    _add_context(commands)
    one = _command(
        commands,
        "install-model",
        _install_model,
        help="copy the embedded model into a WebUI",
        description="Copy the embedded model into the WebUI's models/Stable-diffusion, as asyndm-emoji.safetensors. "
        "AUTOMATIC1111's WebUI can load it; Forge knows no models of its size.",
    )
    one.add_argument("webui", type=Path, metavar="WEBUI_FOLDER", help="the folder that holds webui.py")
    _add_bench(commands)
    return top


def _command(
    commands: argparse._SubParsersAction, name: str, run: Callable[[argparse.Namespace], None], **texts: str
) -> argparse.ArgumentParser:
    """The parser of one command, which ``run`` does. ``texts`` are its ``help`` and
    ``description``."""
    one = commands.add_parser(name, **texts)
    one.set_defaults(run=run, parser=one)
    return one


def _add_generate(commands: argparse._SubParsersAction) -> None:
    one = _command(
        commands,
        "generate",
        _generate,
        help="make pictures of one prompt with and without AsynDM, on a labelled sheet",
        description="Make pictures of one prompt and seed: the ordinary one (DM), one with every pixel slowed "
        "(DM_concave) and one with the target words' regions slowed (AsynDM), and write them on a sheet with the masks "
        "and timesteps of some steps. The prompt is taken literally: the WebUIs' (word:1.3), [a:b:0.5] and AND are "
        "plain text here.",
    )
    one.add_argument("prompt", metavar="PROMPT", help="what to draw")
    method = one.add_argument_group("AsynDM")
    for f in EVERYWHERE:
        meta = f.metadata
        flag, text = "--" + f.name.replace("_", "-"), meta["help"].replace("%", "%%")
        if isinstance(f.default, bool):
            method.add_argument(flag, action="store_true", default=f.default, help=text)
        elif isinstance(f.default, float):
            limits = f"{meta['minimum']:g}-{meta['maximum']:g}"
            read = number(meta["minimum"], meta["maximum"])
            method.add_argument(flag, type=read, default=f.default, metavar=limits, help=text)
        else:
            choices = meta.get("choices")
            read, metavar = (choice(choices, meta["label"].lower()), "NAME") if choices else (str, "WORDS")
            named = f" ({', '.join(choices)})" if choices else ""
            method.add_argument(flag, default=f.default, type=read, metavar=metavar, help=text + named)
    method.add_argument("--mask", type=Path, metavar="FILE",
        help="a PNG picture, stretched over the picture: what is white in it, or opaque, lags; "
        "with --targets see --with-words")
    add = one.add_argument_group("picture").add_argument
    add("--negative", default="", metavar="PROMPT", help="what to keep out of the picture")
    _add_sampling(add, "DPM++ 2M", "automatic", steps=30, cfg=4.5, side=256)
    add("--seed", type=whole(0, MAX_SEED), default=1, metavar="N", help="seed of the (first) picture")
    add("--batch", type=whole(1, MAX_BATCH), default=1, metavar="N", help="how many pictures, with seeds counting up")
    add("--eta", type=number(0, 1), metavar="0-1", default=None,
        help="how much noise the sampler adds back; by default its own (the paper: DDIM with 1)")
    add = one.add_argument_group("model").add_argument
    add("--model", default="unet", type=choice(tuple(EMBEDDED), "embedded model"), metavar="NAME",
        help=f"which of the embedded models: {', '.join(EMBEDDED)}")
    add("--checkpoint", type=Path, metavar="FILE",
        help="instead of it a Stable Diffusion 1 or 2 checkpoint, .safetensors or .ckpt")
    add("--config", type=Path, metavar="YAML", help="its configuration; by default of the same name beside it")
    add("--device", help="cpu or cuda; by default cuda where there is one")
    add = one.add_argument_group("files").add_argument
    add("--out", type=Path, default=Path("sheet.png"), metavar="FILE", help="the sheet to write")
    add("--images", type=Path, metavar="DIR", help="also write the single pictures here")


def _add_bench(commands: argparse._SubParsersAction) -> None:
    one = _command(
        commands,
        "bench",
        _bench,
        help="measure what AsynDM costs in time and memory",
        description="Run whole sampling loops, k-diffusion's own and ours with masks and clocks made anew in every "
        "step, in turn on the same model, and print the ratios. On a GPU the models are of full size with random "
        "weights, in half precision; on a CPU it is the embedded model. Any of --models, --samplers, --batch, --length "
        "and --targets replaces the usual choice of cases.",
    )
    add = one.add_argument
    add("--models", nargs="+", type=choice(BENCH_MODELS, "model to measure"), metavar="NAME",
        help=", ".join(BENCH_MODELS))
    add("--samplers", nargs="+", type=choice(BENCH_SAMPLERS, "sampler to measure"), metavar="NAME",
        help=", ".join(BENCH_SAMPLERS))
    add("--batch", nargs="+", type=whole(1, MAX_BATCH), metavar="N", help="pictures at once")
    add("--length", nargs="+", type=whole(3, MAX_STEPS), metavar="N", help="steps")
    add("--targets", nargs="+", type=whole(1, 8), metavar="N", help="target words")
    add("--by-level", action="store_true",
        help="measure instead what normalisation by level adds to AsynDM, in the steps that make the picture")
    add("--rounds", type=whole(1, 100), default=5, metavar="N", help="how often both loops are timed")
    add("--device", help="cpu or cuda; by default cuda where there is one")
    add("--out", type=Path, default=Path("out/bench.json"), metavar="FILE", help="the figures as JSON")


def _add_evaluate(commands: argparse._SubParsersAction) -> None:
    one = _command(
        commands,
        "evaluate",
        _evaluate,
        help="measure whether pictures follow their prompts better, and print a table",
        description="Compare methods on prompt sets: the ordinary picture, AsynDM, controls and the paper's peers, "
        "paired by prompt and seed, with 95 % confidence intervals. Without --prompts or --webui it is the embedded "
        "model, whose pictures a network counts. What is done is kept, and a second start goes on from there.",
    )
    add = one.add_argument
    add("--folder", type=Path, default=Path("out/evaluation"), metavar="DIR", help="where everything is kept")
    add("--device", help="cpu or cuda; by default cuda where there is one")
    group = one.add_argument_group("an embedded model")
    add = group.add_argument
    add("--model", default="unet", type=choice(tuple(EMBEDDED), "embedded model"), metavar="NAME",
        help=f"which of them: {', '.join(EMBEDDED)}")
    add("--scenery", type=Path, metavar="DIR", help="instead of it the model of scenes in sceneries in this folder")
    add("--two-levels", type=Path, metavar="DIR", help="instead of it the UNet in this folder, trained on two levels")
    add = group.add_mutually_exclusive_group().add_argument
    add("--deciding", action="store_true",
        help="a UNet's methods that decide the defaults: higher CFG, more steps, normalisation by level, wrong masks")
    add("--small", action="store_true", help="a few prompts, two methods, 12 steps: minutes on a CPU")
    add = group.add_argument
    add("--batch", type=whole(1, 4096), default=None, metavar="N", help="pictures at once; by default by the device")
    add("--minutes", type=number(0, 10**6), default=10**6, metavar="N", help="stop after so long")
    add("--sheet", type=Path, metavar="FILE", help="also write a contact sheet")
    add("--table", action="store_true", help="only print the tables of a results file")
    add("--results", type=Path, default=RESULTS, metavar="FILE", help="that file")
    add("--into", type=Path, metavar="README", help="also put the tables into this file, between its marks")
    group = one.add_argument_group("any other model")
    add = group.add_argument
    add("--webui", nargs="+", metavar="URL",
        help="make the pictures in these running WebUIs (started with --api); each goes to whichever is free")
    prompts = group.add_mutually_exclusive_group().add_argument
    prompts("--prompts", type=Path, metavar="FILE",
        help="JSON of AsynDM's authors (item_idx, item_k), a JSON list, or a prompt a line; by default our own")
    prompts("--geneval", type=whole(0, MAX_SEED), nargs="?", const=0, metavar="SEED",
        help="553 prompts in GenEval's manner, drawn with this seed, or as many as --count says")
    add("--scorers", nargs="+", type=choice(SCORERS, "scorer"), metavar="NAME",
        help=f"only these of {', '.join(SCORERS)}; by default each whose package and weights are here")
    add("--checkpoint", type=Path, metavar="FILE", help="without --webui: the checkpoint; by default the embedded one")
    add("--config", type=Path, metavar="YAML", help="its configuration; by default of the same name beside it")
    add("--count", type=whole(1, 10**6), default=None, metavar="N", help="only the first N prompts")
    add("--seeds", type=whole(1, 10**6), default=4, metavar="N", help="pictures of each prompt")
    _add_sampling(add, "DDIM", "automatic", steps=50, cfg=5.0, side=512)
    add("--eta", type=number(0, 1), metavar="0-1", default=None, help="the sampler's; the paper has DDIM with 1")


def _add_context(commands: argparse._SubParsersAction) -> None:
    one = _command(
        commands,
        "context",
        _context,
        help="measure how well a model bears surroundings that are ahead of its targets",
        description="Make some pictures with the model, noise their targets to a timestep and all else to an earlier "
        "one, and print and plot the error of the model's prediction over that lead, in the targets and in the rest. "
        "What is done is kept, and a second start goes on from there.",
    )
    add = one.add_argument
    add("--folder", type=Path, default=Path("out/context"), metavar="DIR", help="where everything is kept")
    add("--device", help="cpu or cuda; by default cuda where there is one")
    add("--batch", type=whole(1, 4096), default=None, metavar="N", help="pictures at once; by default by the device")
    add = one.add_argument_group("model").add_argument
    add("--model", default="unet", type=choice(tuple(EMBEDDED), "embedded model"), metavar="NAME",
        help=f"which of the embedded models: {', '.join(EMBEDDED)}")
    add("--scenery", type=Path, metavar="DIR", help="instead of it the model of scenes in sceneries in this folder")
    add("--checkpoint", type=Path, metavar="FILE",
        help="instead of it a Stable Diffusion 1 or 2 checkpoint, .safetensors or .ckpt")
    add("--config", type=Path, metavar="YAML", help="its configuration; by default of the same name beside it")
    add = one.add_argument_group("its pictures").add_argument
    add("--pictures", type=whole(2, 10**4), default=32, metavar="N", help="how many")
    add("--prompts", type=Path, metavar="FILE", help="a prompt a line, or JSON as for evaluate; by default our own")
    _add_sampling(add)


def _add_sampling(
    add: Callable[..., Any],
    sampler: str | None = None,
    schedule: str | None = None,
    steps: int | None = None,
    cfg: float | None = None,
    side: int | None = None,
) -> None:
    """``add`` the options of how pictures are sampled. None: the command finds its own default."""
    names = ", ".join(SCHEDULES)
    add("--sampler", action=_Sampler, default=sampler, metavar="NAME",
        help=f"its name as in the WebUIs, the schedule may follow it: {', '.join(SAMPLERS)}")
    add("--schedule", type=choice(tuple(SCHEDULES), "schedule"), default=schedule, metavar="NAME",
        help=f"noise schedule: {names}; automatic is the sampler's own in the WebUIs")
    add("--steps", type=whole(1, MAX_STEPS), default=steps, metavar="N", help="steps of the sampler")
    add("--cfg", type=number(0, 100), default=cfg, metavar="SCALE", help="classifier-free guidance scale")
    add("--width", type=whole(1, MAX_SIDE), default=side, metavar="PIXELS", help="width of the picture")
    add("--height", type=whole(1, MAX_SIDE), default=side, metavar="PIXELS", help="height of the picture")


class _Sampler(argparse.Action):
    """Reads a sampler's name as people type it, with its schedule behind it or without."""

    def __call__(self, parser: Any, options: argparse.Namespace, text: Any, flag: str | None = None) -> None:
        sampler, behind = known(text, SAMPLERS), None
        if sampler is None:
            first, _, last = text.replace("_", " ").rpartition(" ")
            sampler, behind = known(first, SAMPLERS), known(last, SCHEDULES)
            if sampler is None or behind is None:
                raise argparse.ArgumentError(self, meant(text, SAMPLERS, "sampler"))
        options.sampler, options.schedule_behind = sampler, behind


def _generate(options: argparse.Namespace) -> None:
    if "with_words" in options.given and options.mask is None:
        raise AsynDMError("--with-words needs --mask: it says how that mask goes with the words")
    _check_model(options)
    _join_schedule(options)
    try:
        from .demo.generate import generate
    except ModuleNotFoundError:
        raise
    except Exception as error:  # such as a torchvision that does not match torch
        raise AsynDMError(f"ldm and k-diffusion cannot be imported here: {type(error).__name__}: {error}") from error
    generate(options)


def _evaluate(options: argparse.Namespace) -> None:
    # Told apart as evaluation.command does.
    table, webui, prompts, embedded = EVALUATIONS
    what = table if options.table else webui if options.webui is not None else prompts
    if what is prompts and options.prompts is None and options.geneval is None:
        what = embedded
        for option in ("into", "results"):
            if option in options.given:
                raise AsynDMError(f"{options.given[option]} needs --table")
        for name in ("checkpoint", "config"):
            if name in options.given:
                raise AsynDMError(f"{options.given[name]} needs --prompts: our own can only be counted in pictures of "
                                  "the embedded models")
    for name, flag in options.given.items():
        if name not in EVALUATIONS[what] and flag not in what.split():
            raise AsynDMError(f"{flag} does not apply to {what}")
    _check_model(options)
    _join_schedule(options)
    from .evaluation.command import evaluate

    evaluate(options)


def _context(options: argparse.Namespace) -> None:
    _check_model(options)
    _join_schedule(options)
    from .evaluation.context import context

    context(options)


def _bench(options: argparse.Namespace) -> None:
    from .bench.command import bench

    bench(options)


def _install_model(options: argparse.Namespace) -> None:
    from .demo.install import install

    print(install(MODEL, options.webui))


def _check_model(options: argparse.Namespace) -> None:
    named = [options.given[one] for one in ("checkpoint", "scenery", "two_levels", "model") if one in options.given]
    if len(named) > 1:
        raise AsynDMError(f"{named[0]} and {named[1]} name two models: give one of them")
    if options.config is not None and options.checkpoint is None:
        raise AsynDMError("--config needs --checkpoint: it is that file's configuration")


def _join_schedule(options: argparse.Namespace) -> None:
    """Take the schedule that stood behind the sampler's name."""
    behind = getattr(options, "schedule_behind", None)
    if behind is None:
        return
    if "schedule" in options.given and options.schedule != behind:
        raise AsynDMError(f"--sampler asks for the schedule {behind}, and --schedule for {options.schedule}")
    options.schedule = behind
