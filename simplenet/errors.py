"""The project's exceptions and warnings.

SimpleNetError              exit code 1
├── UsageError              exit code 2: an argument is wrong (unknown variant, backend, precision, ...)
├── WeightsError            weights cannot be found, read, verified or fitted to the model
│   └── DownloadError       ... because the network or the server failed
├── ArtifactError           an artifact is missing, truncated, tampered with or of another schema version
├── ImageError              an image file or array cannot be used
├── DataError               a dataset or a folder of images cannot be used
├── SourceError             a camera, video or stream cannot be opened or read
├── InputError              a batch given to `Runtime.infer` has the wrong shape, dtype or layout
├── ExportError             an artifact cannot be made
│   └── AgreementError      ... because it disagrees with the PyTorch model it was made from
├── BackendUnavailable      a vendor package, driver or device is missing; the message says what to install
└── BackendError            the vendor's runtime failed while opening or running a model

SimpleNetWarning            a UserWarning; the command line shows it as one line
├── UntrainedWarning        the weights are random: latencies are valid, predictions are not
└── AssumedCardWarning      a checkpoint without a model card: its preprocessing and labels are assumed

Libraries raise; only `simplenet.cli.run` prints. A message is one line: what is wrong, then what to type.
"""

import contextlib
import difflib
import inspect
import operator
import re
import traceback
from collections.abc import Collection
from typing import Any

from simplenet import signals

_TERMINAL_COLORS = re.compile(r"\x1b\[[0-9;]*m")


class SimpleNetError(Exception):
    """Base class of all errors; `exit_code` is the exit code of a script that ends with it."""

    exit_code = 1


class UsageError(SimpleNetError):
    exit_code = 2


class WeightsError(SimpleNetError):
    pass


class DownloadError(WeightsError):
    pass


class ArtifactError(SimpleNetError):
    pass


class ImageError(SimpleNetError):
    pass


class DataError(SimpleNetError):
    pass


class SourceError(SimpleNetError):
    pass


class InputError(SimpleNetError):
    pass


class ExportError(SimpleNetError):
    pass


class AgreementError(ExportError):
    pass


class BackendUnavailable(SimpleNetError):
    pass


class BackendError(SimpleNetError):
    pass


class SimpleNetWarning(UserWarning):
    """Base class of all warnings."""


class UntrainedWarning(SimpleNetWarning):
    pass


class AssumedCardWarning(SimpleNetWarning):
    pass


def check_choice(kind: str, name: str, choices: Collection[str], aliases: Collection[str] = (), hint: str = "") -> str:
    """Return `name` if it is one of `choices` or `aliases`.

    Raises:
        UsageError: it is not; the message suggests the most similar name, lists `choices`, and ends with `hint`.
    """
    names = (*choices, *aliases)
    if name in names:
        return name
    plain = {_letters(each): each for each in reversed(names)}
    similar = difflib.get_close_matches(_letters(str(name)[:100]), plain, n=1)
    suggestion = f", did you mean {plain[similar[0]]!r}?" if similar else ""
    raise UsageError(f"unknown {kind} {name!r}{suggestion}; choose from: {', '.join(choices) or '(none found)'}{hint}")


def _letters(name: str) -> str:
    """Return 'fashionmnist' for both 'fashion-mnist' and torchvision's 'FashionMNIST'."""
    return re.sub(r"[\W_]", "", name.casefold())


def check_integer(name: str, value: Any, minimum: int, maximum: int | None = None) -> int:
    """Return an integer of any type, such as NumPy's, as an int; raise UsageError for other values."""
    with contextlib.suppress(TypeError):
        number = minimum - 1 if isinstance(value, bool) else operator.index(value)
        if minimum <= number <= (number if maximum is None else maximum):
            return number
    limits = f"at least {minimum}" if maximum is None else f"{minimum} to {maximum}"
    raise UsageError(f"{name} must be an integer of {limits}, not {one_line(repr(value), 80)}")


def raise_if_from_signal_handler(error: Exception) -> None:
    """Raise `error` again if a signal handler of the caller raised it, for example at a time limit.

    Raises:
        KeyboardInterrupt: it was raised before, and a package has turned it into `error`.
    """
    if signals.raised():
        raise KeyboardInterrupt from error
    for frame, _ in traceback.walk_tb(error.__traceback__):
        names, rest, _, values = inspect.getargvalues(frame)
        arguments = (*(values.get(name) for name in names), *(values.get(rest, ()) if rest else ()))
        # Python calls a handler with the frame that it interrupts.
        if frame.f_back is not None and any(argument is frame.f_back for argument in arguments):
            raise error


def one_line(error: BaseException | str, limit: int = 300) -> str:
    """Return an error's text as one line of at most `limit` characters without control characters.

    A longer text is cut in the middle: a path or the place in a vendor's source comes first, the cause last.
    """
    text = _TERMINAL_COLORS.sub("", str(error))
    text = printable(" ".join(text.split()) or type(error).__name__)
    start = limit // 3
    return text if len(text) <= limit else f"{text[:start]}…{text[len(text) - (limit - start - 1) :]}"


def printable(text: str) -> str:
    """Return `text` with every control character replaced, so that a terminal can show it safely."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
