"""Files that never take another's place: written beside it under a temporary name, numbered if the name is taken."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from simplenet.errors import SimpleNetError
from simplenet.files import error_message, sync

_MOST_NUMBERS = 10_000


def temporary_beside(path: Path) -> Path:
    """A new, empty file beside `path` whose name says that it is unfinished; its folder is made if need be.

    Raises:
        SimpleNetError: nothing can be written there.
    """
    temporary = path.with_name(f"{path.stem[:100]}.unfinished-{secrets.token_hex(4)}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise SimpleNetError(
            f"cannot write {path}: {error_message(error)}; choose a folder you can write to"
        ) from error
    return temporary


def publish(temporary: Path, path: Path) -> Path:
    """Gives the finished file its name, 'clip.mp4', or 'clip-2.mp4' and so on where that is taken; returns it.

    Raises:
        SimpleNetError: it cannot be renamed.
    """
    try:
        sync(temporary)
        for number in range(1, _MOST_NUMBERS):
            named = path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")
            if _rename_to_new(temporary, named):
                sync(path.parent)
                return named
    except OSError as error:
        raise SimpleNetError(
            f"cannot write {path}: {error_message(error)}; choose a folder you can write to"
        ) from error
    raise SimpleNetError(f"cannot write {path}: {_MOST_NUMBERS} files of that name are there; choose another name")


def _rename_to_new(temporary: Path, named: Path) -> bool:
    """False where the name is taken. A link, unlike a rename, never replaces; memory cards' file systems have none."""
    if os.path.lexists(named):
        return False
    try:
        os.link(temporary, named)
    except FileExistsError:
        return False
    except OSError:
        temporary.rename(named)
        return True
    temporary.unlink()
    return True
