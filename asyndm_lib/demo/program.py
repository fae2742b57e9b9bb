"""What all programs without a WebUI share: how options are read, exit codes, and one line of text
for everything that a person can get wrong.

Nothing here needs torch, so that a program's help and its complaints come at once.
"""

from __future__ import annotations

import argparse
import difflib
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn

from ..errors import AsynDMError, fault

WRONG, INTERRUPTED, FAULT = 2, 130, 1
"""Exit codes: something that the person can mend, Ctrl-C, and a fault of ours."""

SET_UP = frozenset(
    (
        *("einops", "ftfy", "jsonschema", "k_diffusion", "ldm", "numpy", "omegaconf", "PIL", "regex", "requests"),
        *("safetensors", "scipy", "skimage", "torch", "torchsde", "torchvision", "tqdm", "transformers", "yaml"),
    )
)
"""Modules that ``make demo`` installs."""


class Parser(argparse.ArgumentParser):
    """A parser that knows no short forms, and whose errors are ours.

    ``given`` of the options that it reads has those that stood in the arguments: the flag of each,
    by its name. A parser of several commands finds the command's own in its option ``parser``.
    """

    def __init__(self, **options: Any):
        super().__init__(**{"allow_abbrev": False, "formatter_class": Formatter, **options})

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:
        """The options. Raises :class:`AsynDMError` that names what is wrong."""
        arguments = sys.argv[1:] if args is None else list(args)
        options, rest = self.parse_known_args(arguments, namespace)
        flags = {flag: one.dest for one in getattr(options, "parser", self)._actions for flag in one.option_strings}
        if rest:
            if not rest[0].startswith("-"):
                self.error(f"{rest[0]!r:.60} is one word too many; a text of several words stands in quotes")
            near = difflib.get_close_matches(rest[0].partition("=")[0], flags, 1, 0.7)
            self.error(f"there is no option {rest[0]!r:.60}" + (f"; did you mean {near[0]}?" if near else ""))
        words = {word.partition("=")[0] for word in arguments}
        options.given = {dest: flag for flag, dest in flags.items() if flag in words}
        return options

    def error(self, message: str) -> NoReturn:
        raise AsynDMError(message)


class Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows a default only where there is one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return super()._get_help_string(action) if action.default not in (None, "", False) else action.help


def run(work: Callable[[], object], name: str = "asyndm") -> int:
    """Do ``work`` and return the program's exit code.

    The code is 0 if all went well, 2 with one line on stderr for what a person can mend, 130 after
    Ctrl-C, and 1 for a fault of ours, whose traceback is for the report. ``name``: the program's.
    """
    warnings.simplefilter("ignore")  # those of the packages are meant for their developers
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a console that lacks a sign shows a question mark
    try:
        work()
        sys.stdout.flush()
    except KeyboardInterrupt:
        print(f"\n{name}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        installs = "`make demo` installs all that is needed in .venv" if package in SET_UP else "install it with pip"
        return _fail(name, f"the package {error.name!r} is missing; {installs}")
    except AsynDMError as error:
        return _fail(name, str(error))
    except OSError as error:
        return _fail(name, f"{error.filename or 'a file'}: {error.strerror or error}")
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error):  # torch's
            return _fail(name, "the memory is not enough; make fewer or smaller pictures at once")
        sys.excepthook(type(error), error, error.__traceback__)
        _fail(name, str(fault(error)))
        return FAULT
    return 0


def _fail(name: str, message: str) -> int:
    print(f"{name}: error: {' '.join(message.split())}", file=sys.stderr)
    return WRONG


def whole(low: int, high: int) -> Callable[[str], int]:
    """Reads a whole number of that range."""
    return _checked(int, low, high, "a whole number")


def number(low: float, high: float) -> Callable[[str], float]:
    """Reads a number of that range."""
    return _checked(float, low, high, "a number")


def choice(names: Sequence[str], what: str) -> Callable[[str], str]:
    """Reads one of ``names`` as people type it. ``what``: what they are names of."""

    def read(text: str) -> str:
        found = known(text, names)
        if found is None:
            raise argparse.ArgumentTypeError(meant(text, names, what))
        return found

    return read


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


def plain(name: str) -> str:
    """A name without what people write now one way, now another: case, blanks and hyphens, ``k_``
    and ``sample_`` at its beginning, ``dpmpp`` for ``DPM++``, ``ancestral`` for ``a``."""
    text = name.casefold().strip().removeprefix("sample_").removeprefix("k_")
    letters = "".join(letter for letter in text if letter.isalnum() or letter == "+")
    return letters.replace("dpmpp", "dpm++").replace("ancestral", "a")


def known(text: str, names: Iterable[str], others: Mapping[str, str] | None = None) -> str | None:
    """The one of ``names`` that a person means by ``text``; None if it is none of them.

    ``others``: further spellings of some of them.
    """
    spellings = {plain(other): name for other, name in (others or {}).items()}
    spellings |= {plain(name): name for name in names}
    return spellings.get(plain(text))


def meant(text: str, names: Sequence[str], what: str) -> str:
    """What to say of a ``text`` that is none of ``names``."""
    spellings = {plain(name): name for name in names}
    near = difflib.get_close_matches(plain(text), spellings, 1, 0.5)
    asked = f"did you mean {spellings[near[0]]!r}? " if near else ""
    return f"{text!r:.40} is no {what}; {asked}there are {', '.join(names)}"
