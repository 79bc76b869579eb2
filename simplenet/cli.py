"""What every script of this project shares: flags, consoles, and turning errors into one line and an exit code."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from simplenet import variants
from simplenet.artifacts import PRECISIONS
from simplenet.errors import SimpleNetError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

DEFAULT_ARTIFACTS = Path("artifacts")


class _Parser(argparse.ArgumentParser):
    """Usage errors in this project's form: one line, what is wrong and what to type next."""

    def error(self, message: str) -> NoReturn:
        print(f"error: {message}; see: {self.prog} --help", file=sys.stderr)
        raise SystemExit(2)


def parser(docstring: str | None) -> argparse.ArgumentParser:
    """A parser whose --help starts with the script docstring's first paragraph and ends with the rest of it."""
    summary, _, commands = (docstring or "").strip().partition("\n\n")
    return _Parser(
        description=summary,
        epilog=commands,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def run(main: Callable[[], int]) -> NoReturn:
    """Runs a script's main: the project's own errors become one line on stderr, everything else keeps its traceback.

    Exit codes: 0 well, 1 a SimpleNetError, 2 usage, 130 Ctrl-C, 141 the reader of our output went away.
    """
    try:
        code = main()
        sys.stdout.flush()
    except SimpleNetError as error:
        print(f"error: {error}", file=sys.stderr)
        code = error.exit_code
    except KeyboardInterrupt:
        print("interrupted; nothing half-written was kept", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes once more at exit
        code = 141
    sys.exit(code)


def variant_name(text: str) -> str:
    """argparse type: our name of a variant, reference names accepted."""
    try:
        return variants.get(text).name
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def choice(kind: str, choices: Sequence[str]) -> Callable[[str], str]:
    """argparse type: one of `choices`, or an error that names the nearest one."""

    def check(text: str) -> str:
        if text in choices:
            return text
        message = f"unknown {kind} {text!r}{variants.nearest(text, choices)}; choose from: {', '.join(choices)}"
        raise argparse.ArgumentTypeError(message)

    return check


def integer_in(lowest: int, highest: int) -> Callable[[str], int]:
    """argparse type: a whole number within bounds."""

    def check(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = None  # type: ignore[assignment]
        if number is None or not lowest <= number <= highest:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {lowest} to {highest}")
        return number

    return check


def add_variant(to: argparse.ArgumentParser, default: str | None = "1.5m") -> None:
    to.add_argument(
        "--variant",
        type=variant_name,
        default=default,
        metavar="NAME",
        help=f"{', '.join(variants.VARIANTS)} (default: {default})",
    )


def add_weights(to: argparse.ArgumentParser) -> None:
    to.add_argument(
        "--weights",
        default="auto",
        metavar="auto|pretrained|random|NAME|PATH",
        help="auto: official weights if cached or downloadable, else shipped ones, else random ones with a warning; "
        "NAME: weights shipped with the project; PATH: a .safetensors or .pth checkpoint (default: auto)",
    )


def add_precision(to: argparse.ArgumentParser, choices: Sequence[str] = PRECISIONS, default: str = "fp32") -> None:
    to.add_argument(
        "--precision",
        type=choice("precision", choices),
        default=default,
        metavar="NAME",
        help=f"{', '.join(choices)} (default: {default})",
    )


def add_artifacts(to: argparse.ArgumentParser) -> None:
    to.add_argument(
        "--artifacts",
        type=Path,
        default=DEFAULT_ARTIFACTS,
        metavar="DIR",
        help="where artifacts live (default: ./artifacts)",
    )


def add_threads(to: argparse.ArgumentParser) -> None:
    to.add_argument(
        "--threads",
        type=integer_in(1, 1024),
        default=None,
        metavar="N",
        help="CPU threads for a model (default: all physical cores)",
    )


def add_json(to: argparse.ArgumentParser) -> None:
    to.add_argument("--json", action="store_true", help="print the result as JSON on stdout")


def console() -> Console:
    """A rich console on stderr: progress and warnings never mix with a script's piped output."""
    from rich.console import Console

    return Console(stderr=True)
