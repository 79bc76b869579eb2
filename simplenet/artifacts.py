"""Artifacts: a model file and its manifest, the contract between the machine that exports and the device that runs.

artifacts/<variant>[-<weights>]/<format>-<precision>/
    manifest.json, and model.onnx | model.xml + model.bin | model.pt2 | model.engine
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from simplenet import files, strict_json
from simplenet.errors import ArtifactError
from simplenet.formats import FORMATS
from simplenet.manifest import (
    MANIFEST_NAME,
    MANIFEST_SCHEMA_VERSION,
    METADATA_KEY,
    InputSpec,
    Manifest,
    WeightsOrigin,
)

__all__ = [
    "MANIFEST_NAME",
    "MANIFEST_SCHEMA_VERSION",
    "METADATA_KEY",
    "Artifact",
    "InputSpec",
    "Manifest",
    "WeightsOrigin",
    "folder_for",
    "publishing",
    "read",
    "read_manifest",
    "write_manifest",
]

_STALE_SECONDS = 86_400
_ATTEMPTS, _PAUSE_S = 5, 0.01  # at reading what an export may be replacing just then


@dataclass(frozen=True)
class Artifact:
    """An artifact on disk. `model_file` is what a vendor's runtime opens (for OpenVINO the .xml)."""

    model_file: Path
    manifest: Manifest

    @property
    def folder(self) -> Path:
        return self.model_file.parent

    @property
    def size_bytes(self) -> int:
        """Of all model files together."""
        suffixes = [Path(name).suffix for name in FORMATS[self.manifest.format].files]
        # A bare model file may have any name, and its manifest lists no files.
        names = self.manifest.files or [self.model_file.with_suffix(suffix).name for suffix in suffixes]
        return sum((self.folder / name).stat().st_size for name in names)


def folder_for(
    root: str | Path,
    variant: str,
    weights_name: str,
    format: str,
    precision: str,
    *,
    input_dtype: str = "uint8",
    batch: int | None = 1,
) -> Path:
    """artifacts/<variant>[-<weights>]/<format>-<precision>; official weights have no suffix.

    What differs from the default input (uint8, batch 1) is in the name too: onnx-fp32-float32-batch8, ...-dynamic.
    """
    name = f"{format}-{precision}"
    if input_dtype != "uint8":
        name += f"-{input_dtype}"
    if batch != 1:
        name += "-dynamic" if batch is None else f"-batch{batch}"
    suffix = "" if weights_name == "pretrained" else f"-{weights_name}"
    return Path(root) / f"{variant}{suffix}" / name


class _Torn(ArtifactError):
    """Files that do not fit together, or are gone: of a damaged artifact, or of one that is just being replaced."""


_Read = TypeVar("_Read")


def _settled(read: Callable[[], _Read]) -> _Read:
    """What `read` reads once an export that may be replacing it is done: tried again a few times where it is torn."""
    for _ in range(_ATTEMPTS - 1):
        with contextlib.suppress(_Torn):
            return read()
        time.sleep(_PAUSE_S)
    return read()


def read_manifest(folder: str | Path) -> Manifest:
    """What an artifact says that it is; its other files are not looked at.

    Raises:
        ArtifactError: it cannot be read, or was written by another schema version.
    """
    return _settled(lambda: _read_manifest(Path(folder) / MANIFEST_NAME))


def read(path: str | Path) -> Artifact:
    """The artifact in a folder (or that a manifest.json or a model file beside one stands for), every file verified.

    An export that replaces it meanwhile does no harm.

    Raises:
        ArtifactError: missing, truncated or tampered with, or written by another schema version.
    """
    return _settled(lambda: _read(Path(path)))


def _read_manifest(file: Path) -> Manifest:
    try:
        if file.stat().st_size > strict_json.LARGEST_CHARACTERS:
            raise ArtifactError(f"{file} is too large to be a manifest; export the artifact again")
        return Manifest.from_json(file.read_text("utf-8"), where=str(file))
    except UnicodeDecodeError as error:
        raise ArtifactError(f"cannot read {file}: {error}; export the artifact again") from error
    except OSError as error:
        raise _Torn(f"cannot read {file}: {files.reason(error)}; export the artifact again") from error


def _read(path: Path) -> Artifact:
    try:
        folder = path if path.is_dir() else path.parent
        manifest_file = folder / MANIFEST_NAME
        if not path.exists():
            raise _Torn(f"no artifact at {path}; make one with: python export/to_onnx.py --variant 1.5m")
        if not manifest_file.is_file():
            raise _Torn(f"{folder} has no {MANIFEST_NAME}; name an artifact's folder, such as artifacts/1.5m/onnx-fp32")
        manifest = _read_manifest(manifest_file)
        model_file = folder / FORMATS[manifest.format].model_file
        if path.is_file() and path.name not in (MANIFEST_NAME, model_file.name):
            raise ArtifactError(f"{path} is not the model file of {folder}, which is {model_file.name}")
        _verify(folder, manifest)
    except OSError as error:
        raise _Torn(f"cannot read {path}: {files.reason(error)}; export the artifact again") from error
    return Artifact(model_file, manifest)


def _verify(folder: Path, manifest: Manifest) -> None:
    """Raises ArtifactError unless every file that the format needs is listed, there, and what was listed."""
    for name in FORMATS[manifest.format].files:
        if name not in manifest.files:
            raise ArtifactError(f"{folder / MANIFEST_NAME} does not list {name}; export the artifact again")
    for name, expected in manifest.files.items():
        if not (folder / name).is_file():
            raise _Torn(f"{folder / name} is missing; export the artifact again")
        if files.sha256(folder / name) != expected:
            raise _Torn(f"{folder / name} is not the file its manifest describes (SHA-256 differs); export it again")


@contextlib.contextmanager
def publishing(folder: str | Path) -> Iterator[Path]:
    """Yields an empty temporary folder; when the block ends well it takes the place of `folder`, else nothing changes.

    Raises:
        ArtifactError: the place cannot be written, or the disk is full.
    """
    folder = Path(folder)
    with _new_parents_gone_on_failure(folder):
        workplace = _workplace(folder)
        try:
            fresh = workplace / "fresh"
            fresh.mkdir()
            yield fresh
            for path in (*fresh.rglob("*"), fresh):
                files.sync(path)
            _take_place(fresh, folder, workplace)
        except BrokenPipeError:
            raise
        except OSError as error:  # perhaps of a vendor's temporary file elsewhere
            named = str(error.filename or workplace)
            what = folder if named.startswith(str(workplace)) else named
            raise ArtifactError(f"cannot write {what}: {files.reason(error)}; what was there is untouched") from error
        finally:
            shutil.rmtree(workplace, ignore_errors=True)


@contextlib.contextmanager
def _new_parents_gone_on_failure(folder: Path) -> Iterator[None]:
    new = [parent for parent in folder.parents if not files.is_folder(parent)]
    try:
        yield
    except BaseException:  # Ctrl-C too
        for parent in new:
            with contextlib.suppress(OSError, ValueError):  # it was not made, or something is in it
                parent.rmdir()
        raise


def _workplace(folder: Path) -> Path:
    """A new folder beside `folder`."""
    try:
        if folder.is_file():
            raise ArtifactError(f"cannot write {folder}: a file is in its place; move it, or name another --artifacts")
        try:
            return _made_beside(folder)
        except FileNotFoundError:  # another export has failed just now, and has taken its empty folder away
            return _made_beside(folder)
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"cannot write {folder}: {files.reason(error)}; choose another place with --artifacts"
        ) from error


def _made_beside(folder: Path) -> Path:
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(folder)
    return Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))


def _take_place(fresh: Path, folder: Path, workplace: Path) -> None:
    """A folder cannot be renamed over a full one: the old artifact steps aside first, and back if that fails."""
    for attempt in range(100):  # another process may publish at the same place meanwhile: the last one wins
        old = workplace / f"old-{attempt}"
        try:
            with contextlib.suppress(FileNotFoundError):
                os.replace(folder, old)
            os.replace(fresh, folder)
        except BaseException as error:  # Ctrl-C too
            with contextlib.suppress(OSError):  # not over the new one, if that is in place
                os.replace(old, folder)
            if not isinstance(error, OSError) or error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        else:
            files.sync(folder.parent)
            return
    raise OSError(errno.EBUSY, "other processes keep writing the same artifact")


def _remove_stale(folder: Path) -> None:
    """What exports that were killed left beside `folder` a day or longer ago."""
    for leftover in folder.parent.glob(f".{folder.name}.*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - leftover.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(leftover, ignore_errors=True)


def write_manifest(folder: str | Path, manifest: Manifest) -> Artifact:
    """Hashes the model files in `folder`, writes manifest.json beside them and returns the artifact."""
    folder = Path(folder)
    hashes = {file.name: files.sha256(file) for file in sorted(folder.iterdir()) if file.name != MANIFEST_NAME}
    manifest = dataclasses.replace(manifest, files=hashes)
    with files.replacing(folder / MANIFEST_NAME) as temporary:
        temporary.write_text(manifest.to_json(indent=2) + "\n", "utf-8")
    return Artifact(folder / FORMATS[manifest.format].model_file, manifest)
