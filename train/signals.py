"""Ctrl-C and SIGTERM in training: finish the current step and save the state before stopping."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from simplenet import cli, signals


class StopRequest:
    """Set by the first Ctrl-C or SIGTERM."""

    is_set = False


@contextlib.contextmanager
def deferred(logs: bool) -> Iterator[StopRequest]:
    """Turn the first Ctrl-C or SIGTERM into a StopRequest; see `simplenet.signals.handled` for later ones."""
    request = StopRequest()

    def stop(name: str) -> None:
        request.is_set = True
        if logs:
            cli.log("stopping after this step; press Ctrl-C twice more to quit without saving")

    with signals.handled(stop):
        yield request
