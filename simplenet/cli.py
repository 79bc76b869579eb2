"""What every script of this project shares: flags, consoles, and turning errors into one line and an exit code."""

from __future__ import annotations

import argparse
import contextlib
import errno
import functools
import io
import math
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from simplenet import files, variants
from simplenet.errors import SimpleNetError, SimpleNetWarning, UsageError, one_line
from simplenet.formats import PRECISIONS

if TYPE_CHECKING:
    from rich.console import Console

DEFAULT_ARTIFACTS = Path("artifacts")
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_OF_SCRIPTS = ("rich", "psutil")
_NO_WAY_IN = (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP)


class _Parser(argparse.ArgumentParser):
    """Usage errors in this project's form: one line, what is wrong and what to type next."""

    def error(self, message: str) -> NoReturn:
        log(f"error: {message}; see: {self.prog} --help")
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

    Exit codes: 0 well, 1 a SimpleNetError, a full disk, a path that may not be used or a package that is missing,
    2 usage, 130 Ctrl-C, 141 the reader of our output went away.
    """
    warnings.showwarning = functools.partial(_show_warning, warnings.showwarning)
    _prepare_stdout()
    try:
        code = main()
    except SimpleNetError as error:
        log(f"error: {error}")
        code = error.exit_code
    except KeyboardInterrupt:
        log("interrupted; nothing half-written was kept")
        code = 130
    except BrokenPipeError:
        code = 141
    except ModuleNotFoundError as error:
        if error.name is None or not (extra := _extra_of(error.name)):
            raise
        log(f"error: {error.name} is not installed; type: pip install '.[{extra}]'")
        code = 1
    except SystemExit:  # argparse: --help or a usage error
        if _flush_stdout() == 141:
            sys.exit(141)
        raise
    except OSError as error:
        if error.errno in _DISK_FULL:
            log(f"error: {error.strerror}: {error.filename or 'the output'}; free some space")
        elif error.errno in _NO_WAY_IN and error.filename:
            log(f"error: {error.strerror}: {error.filename}; name another path, or change who may use it")
        else:
            raise
        code = 1
    code = _flush_stdout() or code
    _flush_stderr()
    sys.exit(code)


def _extra_of(module: str) -> str:
    """Which extra of pyproject.toml brings a package that scripts import as they need it; '' where none does."""
    folder = Path(sys.argv[0]).resolve().parent.name  # scripts and extras go by the same names
    return folder if module.partition(".")[0] in _OF_SCRIPTS and folder in ("demos", "export") else ""


def _prepare_stdout() -> None:
    """Nothing that is written fails for where it goes: a closed stdout, or one that knows few characters."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, open until the end
    elif isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def _flush_stdout() -> int:
    """0, or the exit code for an output that cannot be written; the interpreter flushes once more at exit, in vain."""
    try:
        sys.stdout.flush()
        return 0
    except BrokenPipeError:
        code = 141
    except OSError as error:
        log(f"error: cannot write the output: {error.strerror}; free some space or write it elsewhere")
        code = 1
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def _flush_stderr() -> None:
    """What a terminal that is gone could not take is dropped here; the interpreter would end with 120 over it."""
    try:
        if sys.stderr is not None:
            sys.stderr.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def log(message: str) -> None:
    """One line on stderr, whatever a file's name or content put into the message; nothing where stderr is closed, or
    its terminal is gone."""
    if sys.stderr is not None:  # print would take stdout instead
        with contextlib.suppress(OSError):
            print(one_line(message, limit=2000), file=sys.stderr)


def _show_warning(
    others: Callable[..., None], message: Warning | str, category: type[Warning], *place: Any, **options: Any
) -> None:
    """This project's warnings as one line; other people's as Python shows them."""
    if issubclass(category, SimpleNetWarning):
        log(f"warning: {message}")
    else:
        others(message, category, *place, **options)


def variant_name(text: str) -> str:
    """argparse type: our name of a variant, reference names accepted."""
    try:
        return variants.get(text).name
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def path(text: str) -> Path:
    """argparse type: a path, `~` expanded."""
    return Path(files.home_expanded(text))


def path_or_name(text: str) -> str:
    """argparse type: what may be a name or a path, `~` expanded."""
    return files.home_expanded(text)


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


def positive_number(text: str) -> float:
    """argparse type: a finite number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return number


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


def add_calibration(to: argparse.ArgumentParser) -> None:
    to.add_argument(
        "--calibration",
        type=path_or_name,
        default="auto",
        metavar="auto|synthetic|NAME|DIR",
        help="pictures for int8: a folder, a shipped set, synthetic ones (for latency only), or auto: those shipped "
        "with the weights, synthetic ones for random weights (default: auto)",
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
        type=path,
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


def is_terminal(stream: TextIO | None) -> bool:
    """Whether somebody looks at it; a closed stream is None."""
    return stream is not None and stream.isatty()


def console() -> Console:
    """A rich console on stderr: progress and warnings never mix with a script's piped output."""
    from rich.console import Console

    return Console(stderr=True)
