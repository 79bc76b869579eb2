"""Writing files so that a crash, a full disk or Ctrl-C leaves the old file or none, never half of one."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from simplenet.errors import SimpleNetError

_KEPT = 40  # characters of a name, of four bytes each perhaps, in a temporary one: 255 bytes are the most


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; when the block ends well, it is synced and renamed to `path`.

    Links are followed: the file that they point to is replaced, not the link.

    Raises:
        SimpleNetError: not a place for a file, not writable, or the disk is full; the old file is intact.
    """
    try:
        path = Path(path).resolve()
        if path.exists() and not path.is_file():  # replacing /dev/null by a file would break the machine
            raise SimpleNetError(f"cannot write {path}: it is not a regular file; name a file")
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f".{path.name[:_KEPT]}.{secrets.token_hex(4)}{path.suffix[:20]}"
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except (OSError, ValueError, RuntimeError) as error:  # ValueError: a NUL in the name; RuntimeError: a link loop
        raise SimpleNetError(f"cannot write {path}: {reason(error)}; choose a folder you can write to") from error
    try:
        try:
            yield temporary
            sync(temporary)
            os.replace(temporary, path)
            sync(path.parent)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise SimpleNetError(f"cannot write {path}: {reason(error)}; what was there is untouched") from error
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(path: Path) -> None:
    """What a program that was killed within `replacing(path)` left beside it; call it where nobody else may write."""
    path = path.resolve()
    for leftover in path.parent.glob(f".{glob.escape(path.name[:_KEPT])}.*"):
        leftover.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Makes the content of a file survive a power cut, and the names in a folder where that can be done.

    Raises:
        OSError: of a file. What has taken its place in a folder is there, whether or not the folder can be synced:
            Windows, some network file systems and folders that one may only write to refuse it.
    """
    is_folder = path.is_dir()
    with contextlib.suppress(OSError) if is_folder else contextlib.nullcontext():
        handle = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def is_file(path: str | Path) -> bool:
    """Whether there is such a file; False also where one may not look, or the name is too long."""
    return os.path.isfile(path)  # noqa: PTH113 - Path.is_file raises then


def is_folder(path: str | Path) -> bool:
    """The same of a folder."""
    return os.path.isdir(path)  # noqa: PTH112


def home_expanded(path: str | Path) -> str:
    """`~` is the user's home, which a shell leaves alone in --output=~/runs; an unknown user's stays as it is."""
    return os.path.expanduser(path)  # noqa: PTH111 - a Path would make rtsp:/x of rtsp://x, and raise


def sha256(path: str | Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def reason(error: Exception) -> str:
    """'No space left on device' rather than '[Errno 28] No space left on device: ...'."""
    if isinstance(error, FileExistsError):  # mkdir's way to say it
        return "a file is where a folder should be"
    return (isinstance(error, OSError) and error.strerror) or str(error)
