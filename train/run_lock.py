"""One run at a time in an output folder: two would write the same files in turn, and both would call it a success."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from simplenet.errors import UsageError
from train.distributed import Group

LOCK_NAME = ".lock"


@contextlib.contextmanager
def held(output: Path, group: Group) -> Iterator[None]:
    """Keeps other runs out of `output` meanwhile, as far as the operating and the file system have locks.

    A lock ends with its process, however that ends. The first process of a group holds it for all.

    Raises:
        UsageError: another run is writing there.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with contextlib.ExitStack() as stack:
        if group.is_first:
            with contextlib.suppress(OSError):  # a folder that cannot be written to is the loop's to tell of
                if not output.exists():
                    output.mkdir(parents=True, exist_ok=True)  # another run may be making it
                    stack.callback(_remove_if_empty, output)
                lock = stack.enter_context(open(output / LOCK_NAME, "ab"))
                try:
                    fcntl.flock(lock.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise UsageError(f"another run is writing to {output}; choose another --output") from None
                stack.callback((output / LOCK_NAME).unlink, missing_ok=True)
        yield


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()
