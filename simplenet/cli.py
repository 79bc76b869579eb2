"""Shared by all scripts: flags and their types, messages on stderr, and exit codes for errors."""

from __future__ import annotations

import argparse
import atexit
import contextlib
import dataclasses
import errno
import functools
import io
import math
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

from simplenet import files, labels, signals, variants
from simplenet.errors import SimpleNetError, SimpleNetWarning, UsageError, check_choice, one_line
from simplenet.labels import KNOWN_DATASETS
from simplenet.model_card import MAX_SIZE, NO_OVERRIDES

if TYPE_CHECKING:
    from rich.console import Console

DEFAULT_ARTIFACTS = Path("artifacts")
_ACCESS_ERRORS = (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP)
_PACKAGES_OF_EXTRAS = ("rich", "psutil", "matplotlib")


class _Parser(argparse.ArgumentParser):
    """Reports usage errors in one line and exits with code 2."""

    def error(self, message: str) -> NoReturn:
        log(f"error: {message}; see: {self.prog} --help")
        raise SystemExit(2)


def parser(docstring: str | None) -> argparse.ArgumentParser:
    """Return a parser whose --help starts with the docstring's first paragraph and ends with the rest."""
    summary, _, commands = (docstring or "").strip().partition("\n\n")
    return _Parser(
        description=summary,
        epilog=commands,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def run(main: Callable[[], int]) -> NoReturn:
    """Run a script's main and exit; expected errors become one line, others keep their traceback.

    Exit codes: 1 for a SimpleNetError, an output that cannot be written, a full disk, a path that cannot be accessed or
    a missing package; 2 for a usage error; 128 and its number for a signal, so 130 for Ctrl-C; 141 if the process that
    reads stdout has ended; else what main returns.
    """
    _prepare_streams()
    warnings.simplefilter("always", SimpleNetWarning)  # PYTHONWARNINGS=ignore is for other programs' warnings
    warnings.showwarning = functools.partial(_show_warning, warnings.showwarning, set())
    with signals.handled():
        try:
            code = main()
        except BaseException as error:  # noqa: BLE001 - raised again if it is not expected
            is_interrupt = signals.raised() or isinstance(error, KeyboardInterrupt)
            code = signals.end_interrupted() if is_interrupt else _log_error(error)
        try:
            sys.stdout.flush()
        except (SimpleNetError, SystemExit) as error:
            code = code or _log_error(error)
    atexit.register(signals.ignore_all)  # runs first: after threads, before packages' own functions
    sys.exit(code)


def _log_error(error: BaseException) -> Any:
    """Log an expected error and return the exit code; raise others."""
    if isinstance(error, SystemExit):  # argparse: --help or a usage error; or the process that reads stdout has ended
        return error.code
    if isinstance(error, SimpleNetError):
        log(f"error: {error}")
        return error.exit_code
    if isinstance(error, ModuleNotFoundError):
        extra = Path(sys.argv[0]).resolve().parent.name  # the extras have the names of the scripts' folders
        package = str(error.name).partition(".")[0]
        if extra in ("demos", "export") and package in _PACKAGES_OF_EXTRAS:
            log(f"error: {package} is not installed; type: pip install '.[{extra}]'")
            return 1
    if isinstance(error, OSError) and error.errno in files.DISK_FULL:
        log(f"error: {error.strerror}{f': {error.filename}' if error.filename else ''}; free some space")
        return 1
    if isinstance(error, OSError) and error.errno in _ACCESS_ERRORS and error.filename:
        log(f"error: {error.strerror}: {error.filename}; name another path, or change its permissions")
        return 1
    raise error


def _check_working_directory() -> None:
    try:
        Path.cwd()
    except FileNotFoundError as error:  # PyTorch's oneMKL would end the process with a message about libtorch_cpu.so
        raise UsageError("the working directory no longer exists; type: cd DIR, with a DIR that exists") from error


def _handle_uncaught(
    default: Callable[..., None], kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    """Handle Ctrl-C after `run`, and a removed working directory before it, as `run` does."""
    if issubclass(kind, (KeyboardInterrupt, SimpleNetError)) and not hasattr(
        sys, "ps1"
    ):  # an interactive session stays
        sys.exit(signals.end_interrupted() if isinstance(error, KeyboardInterrupt) else _log_error(error))
    default(kind, error, traceback)


def _prepare_streams() -> None:
    """Replace closed streams, end the program at output that cannot be written, and drop messages that cannot."""
    while (null := os.open(os.devnull, os.O_RDWR)) <= 2:  # else a file of the program would get the stream's number
        os.set_inheritable(null, True)
    os.close(null)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal's encoding may lack characters of a file's name
    for stream, on_error in ((sys.stdout, _end_output), (sys.stderr, lambda error: None)):
        for name in ("write", "flush"):
            setattr(stream, name, functools.partial(_call, getattr(stream, name), on_error))


def _call(function: Callable[..., Any], on_error: Callable[[OSError], Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except OSError as error:
        return on_error(error)


def _end_output(error: OSError) -> NoReturn:
    """End the program with 141 or an error. rich would exit with 1 if it got the BrokenPipeError."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the rest cannot be written either
    if isinstance(error, BrokenPipeError):
        raise SystemExit(141)
    advice = "free some space or write it elsewhere" if error.errno in files.DISK_FULL else "write it elsewhere"
    raise SimpleNetError(f"cannot write the output: {error.strerror}; {advice}") from error


def log(message: str) -> None:
    """Print one line on stderr, without control characters."""
    print(one_line(message, limit=2000), file=sys.stderr)


def _show_warning(
    default: Callable[..., None],
    shown: set[str],
    message: Warning | str,
    category: type[Warning],
    *args: Any,
    **options: Any,
) -> None:
    """Print this project's warnings as one line, each text once, and all others as Python does."""
    if not issubclass(category, SimpleNetWarning):
        default(message, category, *args, **options)
    elif str(message) not in shown:  # compare.py loads the same weights for every export
        shown.add(str(message))
        log(f"warning: {message}")


def _checked(check: Callable[[], str]) -> str:
    """Return the result of a check; argparse puts the flag's name before the text of its UsageError."""
    try:
        return check()
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def variant_name(text: str) -> str:
    """argparse type: a variant's name; a reference name is replaced by it."""
    return _checked(lambda: variants.get(text).name)


def path(text: str) -> Path:
    """argparse type: a path, `~` expanded."""
    return Path(files.expand_home(text))


def file_ending_in(*suffixes: str) -> Callable[[str], Path]:
    """argparse type: the path of an output file with one of the suffixes, such as '.png' (in lower case)."""

    def check(text: str) -> Path:
        if Path(text).suffix.lower() not in suffixes:
            raise argparse.ArgumentTypeError(f"{text!r} must be a name that ends in {' or '.join(suffixes)}")
        return path(text)

    return check


def choice(kind: str, choices: Sequence[str]) -> Callable[[str], str]:
    """argparse type: one of `choices`, or an error that lists them and suggests the most similar one."""
    return lambda text: _checked(lambda: check_choice(kind, text, choices))


def integer_in(lowest: int, highest: int) -> Callable[[str], int]:
    """argparse type: an integer within bounds."""

    def check(text: str) -> int:
        with contextlib.suppress(ValueError):
            if lowest <= (number := int(text)) <= highest:
                return number
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer from {lowest} to {highest}")

    return check


def positive_number(text: str) -> float:
    """argparse type: a finite number above 0."""
    with contextlib.suppress(ValueError):
        if 0 < (number := float(text)) < math.inf:
            return number
    raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")


def add_count(
    to: argparse.ArgumentParser, flag: str, help: str, default: int | None = None, highest: int = 10**9
) -> None:
    """Add a flag that takes an integer from 1 to `highest`; its help names the default, if there is one."""
    help += f" (default: {default})" if default else ""
    to.add_argument(flag, type=integer_in(1, highest), default=default, metavar="N", help=help)


def add_variant(to: argparse.ArgumentParser, default: str = "1.5m") -> None:
    help = f"{', '.join(variants.VARIANTS)} (default: {default})"
    to.add_argument("--variant", type=variant_name, default=default, metavar="NAME", help=help)


def add_weights(to: argparse.ArgumentParser) -> None:
    to.add_argument(
        "--weights",
        default="auto",
        metavar="auto|pretrained|random|NAME|PATH",
        help="auto: official weights if cached or downloadable, else shipped ones, else random ones with a warning; "
        "NAME: weights shipped with the project; PATH: a .safetensors, .pth or .npz checkpoint (default: auto)",
    )
    add_weights_key(to)


def add_weights_key(to: argparse.ArgumentParser) -> None:
    help = "which weights of a checkpoint that has several, such as model_ema (default: the averaged ones)"
    to.add_argument("--weights-key", metavar="KEY", help=help)


def add_overrides(to: argparse.ArgumentParser) -> None:
    """Add the flags of `CardOverrides`, which together give one value, `overrides`."""
    group = to.add_argument_group("preprocessing and labels, for a checkpoint without a model card")
    names = ", ".join(KNOWN_DATASETS)
    add = functools.partial(group.add_argument, action=_Override, dest="overrides", default=NO_OVERRIDES)
    add("--dataset", metavar="NAME", help=f"those of a known dataset: {names}")
    add("--mean", nargs=3, type=float, metavar=("R", "G", "B"), help="mean of the training pixels, scaled to 0..1")
    add("--std", nargs=3, type=float, metavar=("R", "G", "B"), help="their standard deviation")
    add("--size", type=integer_in(1, MAX_SIZE), metavar="PIXELS", help="side of the network's input, with padding")
    add("--resize", type=integer_in(1, MAX_SIZE), metavar="PIXELS", help="shorter side of the image before the crop")
    add("--padding", type=integer_in(0, MAX_SIZE), metavar="PIXELS", help="black pixels on each side of the crop")
    add("--labels", type=labels.read, metavar="FILE", help="the weights' class names: one on each line, or JSON")


class _Override(argparse.Action):
    def __call__(self, parser: object, namespace: argparse.Namespace, values: Any, option: str | None = None) -> None:
        value = tuple(values) if isinstance(values, list) else values
        namespace.overrides = dataclasses.replace(namespace.overrides, **{str(option).removeprefix("--"): value})


def add_calibration(to: argparse.ArgumentParser) -> None:
    to.add_argument(
        "--calibration",
        type=files.expand_home,
        default="auto",
        metavar="auto|synthetic|NAME|DIR",
        help="images for int8: a folder, a shipped dataset, synthetic images (for latency only), or auto: those "
        "shipped with the weights, synthetic images for random weights (default: auto)",
    )


def add_precision(to: argparse.ArgumentParser, choices: Sequence[str]) -> None:
    help = f"{', '.join(choices)} (default: fp32)"
    to.add_argument("--precision", type=choice("precision", choices), default="fp32", metavar="NAME", help=help)


def add_artifacts(to: argparse.ArgumentParser) -> None:
    help = "folder of the artifacts (default: ./artifacts)"
    to.add_argument("--artifacts", type=path, default=DEFAULT_ARTIFACTS, metavar="DIR", help=help)


def add_threads(to: argparse.ArgumentParser) -> None:
    help = "CPU threads per model (default: all physical cores)"
    to.add_argument("--threads", type=integer_in(1, 1024), metavar="N", help=help)


def add_json(to: argparse.ArgumentParser) -> None:
    to.add_argument("--json", action="store_true", help="print the result as JSON on stdout")


def console() -> Console:
    """Return a rich console on stderr, so that progress bars do not mix with the output on stdout."""
    from rich.console import Console

    return Console(stderr=True)


sys.excepthook = functools.partial(_handle_uncaught, sys.excepthook)
_check_working_directory()
