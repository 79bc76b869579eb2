"""Tables and progress bars that all scripts share; rich is imported only when one is made."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from simplenet import cli

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def output(width: int) -> Console:
    """A console on stdout, `width` characters wide if stdout is no terminal."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else width)


def table(*headings: str) -> Table:
    """An empty table. The first two columns hold text, the others numbers."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for position, heading in enumerate(headings):
        table.add_column(heading, justify="left" if position < 2 else "right", vertical="bottom")
    return table


@contextlib.contextmanager
def progress_bar(description: str, total: int) -> Iterator[Callable[..., None]]:
    """Show a progress bar if stderr is a terminal.

    Yields a function that updates it, with the keywords of `rich.progress.Progress.update`.

    >>> with progress_bar("classifying", len(paths)) as update:
    ...     update(advance=1)
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = cli.console()
    # redirect_stdout would write lines for a pipe to the terminal.
    show = functools.partial(Progress, transient=True, redirect_stdout=False)
    with show(*columns, console=console, disable=not console.is_terminal) as progress:
        yield functools.partial(progress.update, progress.add_task(description, total=total))
