"""Atomic writes (a crash, a full disk or Ctrl-C leaves no partial file), and helpers for paths."""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

from simplenet.errors import SimpleNetError, UsageError

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_ADVICE = {
    **dict.fromkeys(DISK_FULL, "free some space"),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "allow more open files: ulimit -n 4096"),
}
_NAME_CHARACTERS = 40  # start of the file's name in a temporary name: at most 160 of the 255 bytes that are allowed


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; if the block succeeds, sync it and rename it to `path`.

    A symbolic link stays: the file that it points to is replaced.

    Raises:
        SimpleNetError: `path` is no regular file or not writable, or the disk is full; an old file is intact.

    Example:
        with files.replacing("result.json") as temporary:
            temporary.write_text(text)
    """
    try:
        path = Path(path).resolve()
        if path.exists() and not path.is_file():  # replacing /dev/null by a file would break the machine
            raise SimpleNetError(f"cannot write {path}: it is not a regular file; name a file")
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f".{path.name[:_NAME_CHARACTERS]}.{secrets.token_hex(4)}{path.suffix[:20]}"
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except (OSError, ValueError, RuntimeError) as error:  # ValueError: a NUL in the name; RuntimeError: a link loop
        raise _write_error(path, error) from error
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _write_error(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def _write_error(path: str | Path, error: Exception) -> SimpleNetError:
    kept = "; the old file is unchanged" if is_file(path) else ""
    advice = _ADVICE.get(getattr(error, "errno", 0), "choose a folder you can write to")
    return SimpleNetError(f"cannot write {path}: {error_message(error)}{kept}; {advice}")


def remove_leftovers(path: Path) -> None:
    """Remove temporary files that killed `replacing(path)` calls left; no process may be writing `path`."""
    path = path.resolve()
    for leftover in path.parent.glob(f".{glob.escape(path.name[:_NAME_CHARACTERS])}.*"):
        leftover.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Flush a file or folder to disk, so that it survives a power cut.

    Errors of a folder are ignored: Windows, some network file systems and write-only folders cannot sync folders.

    Raises:
        OSError: a file cannot be synced.
    """
    is_folder = path.is_dir()
    with contextlib.suppress(OSError) if is_folder else contextlib.nullcontext():
        handle = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def is_file(path: str | Path) -> bool:
    """Whether `path` is a file; False also if it cannot be accessed or the name is too long."""
    return os.path.isfile(path)  # noqa: PTH113 - Path.is_file raises in those cases


def is_folder(path: str | Path) -> bool:
    """Whether `path` is a folder; False also if it cannot be accessed or the name is too long."""
    return os.path.isdir(path)  # noqa: PTH112


def expand_home(path: str | Path) -> str:
    """Replace a leading `~`, which shells do not expand in --output=~/runs, by the user's home folder.

    Raises:
        UsageError: this user has no home folder.
    """
    expanded = os.path.expanduser(path)  # noqa: PTH111 - a Path would turn rtsp://x into rtsp:/x
    if re.match(r"~($|[/\\])", expanded):
        raise UsageError(f"this user has no home folder for {expanded}; type a path without ~, or set HOME")
    return expanded


def sha256(path: str | Path) -> str:
    """Return the hex SHA-256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def error_message(error: Exception) -> str:
    """Return an error's text without number and path, such as 'No space left on device'."""
    if isinstance(error, FileExistsError):  # of mkdir
        return "a file is where a folder should be"
    return (isinstance(error, OSError) and error.strerror) or str(error)


def read_advice(error: Exception) -> str:
    """Return what a user can do about an error while reading, '' if the file itself may be the reason."""
    if isinstance(error, PermissionError):
        return "make it readable for this user"
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return "allow more open files: ulimit -n 4096"
    is_name = isinstance(error, ValueError | FileNotFoundError) or getattr(error, "errno", 0) == errno.ENAMETOOLONG
    return "check the name" if is_name else ""
