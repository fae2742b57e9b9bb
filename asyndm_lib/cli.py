"""The command line: its options, and one line of text for everything that a person can get
wrong."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from .demo import EMBEDDED, MODEL
from .errors import AsynDMError

BENCH_MODELS = (
    *("embedded", "embedded transformer", "SD 1.5", "SD 2.1", "SD 2.1 768", "SDXL"),
    *("SD 3.5 medium", "SD 3.5 medium bf16", "Flux.1 dev", "Flux.1 dev fused"),
)

RESULTS = Path(__file__).parent / "evaluation" / "results.json"
"""The committed results of an evaluation."""

MAX_SIDE, MAX_STEPS, MAX_BATCH, MAX_SEED = 2048, 1000, 16, 2**32 - 1


class Failure(Exception):
    """A request that cannot be met; its text is one line for the person."""


class _Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows a default only where there is one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return super()._get_help_string(action) if action.default not in (None, "", False) else action.help


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Failure(message)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    The code is 0 if all went well, 2 with one line on stderr for a wrong value, and 130 after
    Ctrl-C.
    """
    warnings.simplefilter("ignore")  # those of the packages are meant for their developers
    try:
        options = parser().parse_args(arguments)
        options.run(options)
    except KeyboardInterrupt:
        print("\nasyndm: interrupted", file=sys.stderr)
        return 130
    except ModuleNotFoundError as error:
        return _fail(f"the package {error.name!r} is missing; `make demo` installs all that is needed in .venv")
    except (Failure, AsynDMError) as error:
        return _fail(str(error))
    return 0


def _fail(message: str) -> int:
    print(f"asyndm: error: {' '.join(message.split())}", file=sys.stderr)
    return 2


def parser() -> argparse.ArgumentParser:
    """The parser of all commands and options."""
    top = _Parser(prog="asyndm", description="AsynDM (asynchronous denoising, arXiv 2510.04504) without a WebUI.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_generate(commands)
    _add_evaluate(commands)
    _add_context(commands)
    one = commands.add_parser(
        "install-model",
        help="copy the embedded model into a WebUI",
        description="Copy the embedded model into the WebUI's models/Stable-diffusion, as asyndm-emoji.safetensors. "
        "AUTOMATIC1111's WebUI can load it; Forge knows no models of its size.",
    )
    one.add_argument("webui", type=Path, metavar="WEBUI_FOLDER", help="the folder that holds webui.py")
    one.set_defaults(run=_install_model)
    _add_bench(commands)
    return top


def _command(commands: argparse._SubParsersAction, name: str, **texts: str) -> argparse.ArgumentParser:
    """The parser of one command with options. ``texts`` are its ``help`` and ``description``."""
    return commands.add_parser(name, formatter_class=_Formatter, allow_abbrev=False, **texts)


def _add_generate(commands: argparse._SubParsersAction) -> None:
    from .samplers.neo.table import LABELS as FLOW_LABELS
    from .samplers.table import LABELS
    from .settings.settings import EVERYWHERE

    one = _command(
        commands,
        "generate",
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
            method.add_argument(flag, type=float, default=f.default, metavar=limits, help=text)
        else:
            choices, metavar = meta.get("choices"), None if "choices" in meta else "WORDS"
            method.add_argument(flag, default=f.default, choices=choices, metavar=metavar, help=text)
    method.add_argument("--mask", type=Path, metavar="FILE",
        help="a PNG picture, stretched over the picture: what is white in it, or opaque, lags; "
        "with --targets see --with-words")
    add = one.add_argument_group("picture").add_argument
    add("--negative", default="", metavar="PROMPT", help="what to keep out of the picture")
    _add_sampling(add, {**LABELS, **FLOW_LABELS}, "DPM++ 2M", "automatic", steps=30, cfg=4.5, side=256)
    add("--seed", type=_whole(0, MAX_SEED), default=1, metavar="N", help="seed of the (first) picture")
    add("--batch", type=_whole(1, MAX_BATCH), default=1, metavar="N", help="how many pictures, with seeds counting up")
    add("--eta", type=_number(0, 1), metavar="0-1", default=None,
        help="how much noise the sampler adds back; by default its own (the paper: DDIM with 1)")
    add = one.add_argument_group("model").add_argument
    add("--model", default="unet", choices=list(EMBEDDED), help="which of the embedded models")
    add("--checkpoint", type=Path, metavar="FILE",
        help="instead of it a Stable Diffusion 1 or 2 checkpoint, .safetensors or .ckpt")
    add("--config", type=Path, metavar="YAML", help="its configuration; by default of the same name beside it")
    add("--device", help="cpu or cuda; by default cuda where there is one")
    add = one.add_argument_group("files").add_argument
    add("--out", type=Path, default=Path("sheet.png"), metavar="FILE", help="the sheet to write")
    add("--images", type=Path, metavar="DIR", help="also write the single pictures here")
    one.set_defaults(run=_generate)


def _add_bench(commands: argparse._SubParsersAction) -> None:
    from .samplers.table import LABELS

    one = _command(
        commands,
        "bench",
        help="measure what AsynDM costs in time and memory",
        description="Run whole sampling loops, k-diffusion's own and ours with masks and clocks made anew in every "
        "step, in turn on the same model, and print the ratios. On a GPU the models are of full size with random "
        "weights, in half precision; on a CPU it is the embedded model. Any of --models, --samplers, --batch, --length "
        "and --targets replaces the usual choice of cases.",
    )
    add = one.add_argument
    add("--models", nargs="+", choices=BENCH_MODELS, metavar="NAME", help=", ".join(BENCH_MODELS))
    samplers = [label for label, (sampler, _) in LABELS.items() if sampler.benched]
    add("--samplers", nargs="+", choices=samplers, metavar="NAME", help=", ".join(samplers))
    add("--batch", nargs="+", type=_whole(1, MAX_BATCH), metavar="N", help="pictures at once")
    add("--length", nargs="+", type=_whole(3, MAX_STEPS), metavar="N", help="steps")
    add("--targets", nargs="+", type=_whole(1, 8), metavar="N", help="target words")
    add("--rounds", type=_whole(1, 100), default=5, metavar="N", help="how often both loops are timed")
    add("--device", help="cpu or cuda; by default cuda where there is one")
    add("--out", type=Path, default=Path("out/bench.json"), metavar="FILE", help="the figures as JSON")
    one.set_defaults(run=_bench)


def _add_evaluate(commands: argparse._SubParsersAction) -> None:
    from .samplers.table import LABELS

    one = _command(
        commands,
        "evaluate",
        help="measure whether pictures follow their prompts better, and print a table",
        description="Compare methods on prompt sets: the ordinary picture, AsynDM, controls and the paper's peers, "
        "paired by prompt and seed, with 95%% confidence intervals. Without --prompts or --webui it is the embedded "
        "model, whose pictures a network counts. What is done is kept, and a second start goes on from there.",
    )
    add = one.add_argument
    add("--folder", type=Path, default=Path("out/evaluation"), metavar="DIR", help="where everything is kept")
    add("--device", help="cpu or cuda; by default cuda where there is one")
    add = one.add_argument_group("an embedded model").add_argument
    add("--model", default="unet", choices=list(EMBEDDED), help="which of them")
    add("--scenery", type=Path, metavar="DIR", help="instead of it the model of scenes in sceneries in this folder")
    add("--deciding", action="store_true",
        help="a UNet's methods that decide the defaults: higher CFG, more steps, normalisation by level, wrong masks")
    add("--small", action="store_true", help="a few prompts, two methods, 12 steps: minutes on a CPU")
    add("--batch", type=_whole(1, 4096), default=None, metavar="N", help="pictures at once; by default by the device")
    add("--minutes", type=_number(0, 10**6), default=10**6, metavar="N", help="stop after so long")
    add("--sheet", type=Path, metavar="FILE", help="also write a contact sheet")
    add("--table", action="store_true", help="only print the tables of a results file")
    add("--results", type=Path, default=RESULTS, metavar="FILE", help="that file")
    add("--into", type=Path, metavar="README", help="also put the tables into this file, between its marks")
    add = one.add_argument_group("any other model").add_argument
    add("--webui", metavar="URL", help="make the pictures in this running WebUI (started with --api)")
    add("--prompts", type=Path, metavar="FILE",
        help="JSON of AsynDM's authors (item_idx, item_k), a JSON list, or a prompt a line; by default our own")
    add("--checkpoint", type=Path, metavar="FILE", help="without --webui: the checkpoint; by default the embedded one")
    add("--config", type=Path, metavar="YAML", help="its configuration; by default of the same name beside it")
    add("--count", type=_whole(1, 10**6), default=None, metavar="N", help="only the first N prompts")
    add("--seeds", type=_whole(1, 10**6), default=4, metavar="N", help="pictures of each prompt")
    _add_sampling(add, LABELS, "DDIM", "automatic", steps=50, cfg=5.0, side=512)
    add("--eta", type=_number(0, 1), metavar="0-1", default=None, help="the sampler's; the paper has DDIM with 1")
    one.set_defaults(run=_evaluate)


def _add_context(commands: argparse._SubParsersAction) -> None:
    from .samplers.neo.table import LABELS as FLOW_LABELS
    from .samplers.table import LABELS

    one = _command(
        commands,
        "context",
        help="measure how well a model bears surroundings that are ahead of its targets",
        description="Make some pictures with the model, noise their targets to a timestep and all else to an earlier "
        "one, and print and plot the error of the model's prediction over that lead, in the targets and in the rest. "
        "What is done is kept, and a second start goes on from there.",
    )
    add = one.add_argument
    add("--folder", type=Path, default=Path("out/context"), metavar="DIR", help="where everything is kept")
    add("--device", help="cpu or cuda; by default cuda where there is one")
    add("--batch", type=_whole(1, 4096), default=None, metavar="N", help="pictures at once; by default by the device")
    add = one.add_argument_group("model").add_argument
    add("--model", default="unet", choices=list(EMBEDDED), help="which of the embedded models")
    add("--scenery", type=Path, metavar="DIR", help="instead of it the model of scenes in sceneries in this folder")
    add("--checkpoint", type=Path, metavar="FILE",
        help="instead of it a Stable Diffusion 1 or 2 checkpoint, .safetensors or .ckpt")
    add("--config", type=Path, metavar="YAML", help="its configuration; by default of the same name beside it")
    add = one.add_argument_group("its pictures").add_argument
    add("--pictures", type=_whole(2, 10**4), default=32, metavar="N", help="how many")
    add("--prompts", type=Path, metavar="FILE", help="a prompt a line, or JSON as for evaluate; by default our own")
    _add_sampling(add, {**LABELS, **FLOW_LABELS})
    one.set_defaults(run=_context)


def _add_sampling(
    add: Callable[..., Any],
    samplers: Iterable[str],
    sampler: str | None = None,
    schedule: str | None = None,
    steps: int | None = None,
    cfg: float | None = None,
    side: int | None = None,
) -> None:
    """``add`` the options of how pictures are sampled. None: the command finds its own default."""
    from .hosts.standalone.schedules import SCHEDULES

    add("--sampler", default=sampler, choices=list(samplers), help="its name as in the WebUIs")
    add("--schedule", default=schedule, choices=list(SCHEDULES),
        help="noise schedule; automatic is the sampler's own in the WebUIs")
    add("--steps", type=_whole(1, MAX_STEPS), default=steps, metavar="N", help="steps of the sampler")
    add("--cfg", type=_number(0, 100), default=cfg, metavar="SCALE", help="classifier-free guidance scale")
    add("--width", type=_whole(1, MAX_SIDE), default=side, metavar="PIXELS", help="width of the picture")
    add("--height", type=_whole(1, MAX_SIDE), default=side, metavar="PIXELS", help="height of the picture")


def _whole(low: int, high: int) -> Callable[[str], int]:
    return _checked(int, low, high, "a whole number")


def _number(low: float, high: float) -> Callable[[str], float]:
    return _checked(float, low, high, "a number")


def _checked(kind: type, low: float, high: float, words: str) -> Callable:
    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text!r:.40} is not {words} from {low} to {high}")
        return value

    return read


def _generate(options: argparse.Namespace) -> None:
    try:
        from .demo.generate import generate
    except ModuleNotFoundError:
        raise
    except Exception as error:  # such as a torchvision that does not match torch
        raise Failure(f"ldm and k-diffusion cannot be imported here: {type(error).__name__}: {error}") from error
    generate(options)


def _evaluate(options: argparse.Namespace) -> None:
    from .evaluation.command import evaluate

    evaluate(options)


def _context(options: argparse.Namespace) -> None:
    from .evaluation.context import context

    context(options)


def _bench(options: argparse.Namespace) -> None:
    from .bench.command import bench

    bench(options)


def _install_model(options: argparse.Namespace) -> None:
    from .demo.install import install

    print(install(MODEL, options.webui))
