"""Artifacts: a folder with a model and its manifest, written by an export and read by a runtime.

artifacts/<variant>[-<weights>]/<format>-<precision>/
    manifest.json and the format's model files (simplenet/formats.py)
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import itertools
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from simplenet import files, strict_json
from simplenet.errors import ArtifactError, raise_if_from_signal_handler
from simplenet.formats import FORMATS
from simplenet.manifest import MANIFEST_NAME, Manifest

_STALE_SECONDS = 86_400
READ_ATTEMPTS, _READ_PAUSE_S = 5, 0.01  # an export may be replacing the artifact
_DIFFERS = "{} is not the file its manifest describes (SHA-256 differs); export it again"
_EXTERNAL_DATA = b"\n\x08location\x12"  # ONNX: stands before the name of another file that has a tensor's values


@dataclass(frozen=True)
class Artifact:
    """An artifact on disk. `model_file` is the file that a backend opens (for OpenVINO the .xml)."""

    model_file: Path
    manifest: Manifest

    @property
    def folder(self) -> Path:
        return self.model_file.parent

    @property
    def size_bytes(self) -> int:
        """Size of all model files together."""
        return sum(self._path(name).stat().st_size for name in FORMATS[self.manifest.format].files)

    def read(self, name: str | None = None) -> bytes:
        """Return the content of a model file, so that the loaded model does not change with the file.

        Args:
            name: one of the format's files; by default the model file.

        Raises:
            ArtifactError: it cannot be read, its SHA-256 is not the manifest's, or it refers to further files.
        """
        name = name or FORMATS[self.manifest.format].model_file
        path, expected = self._path(name), self.manifest.files.get(name)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise unreadable(path, error) from error
        if expected is not None and hashlib.sha256(content).hexdigest() != expected:
            raise IncompleteError(_DIFFERS.format(path))
        if path.suffix == ".onnx" and _EXTERNAL_DATA in content:
            raise ArtifactError(
                f"{path} has weights in another file, which no manifest describes; save it as one file: "
                "onnx.save(onnx.load(FILE), FILE)"
            )
        return content

    def _path(self, name: str) -> Path:
        """Return the path of a model file; without a manifest.json, it may be renamed, as net.xml and net.bin."""
        return self.model_file.with_suffix(Path(name).suffix)


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
    """Return artifacts/<variant>[-<weights>]/<format>-<precision>; official weights have no suffix.

    An input dtype other than uint8 and a batch size other than 1 are appended: onnx-fp32-float32-batch8,
    onnx-fp32-dynamic.
    """
    name = f"{format}-{precision}"
    if input_dtype != "uint8":
        name += f"-{input_dtype}"
    if batch != 1:
        name += "-dynamic" if batch is None else f"-batch{batch}"
    suffix = "" if weights_name == "pretrained" else f"-{weights_name}"
    return Path(root) / f"{variant}{suffix}" / name


class IncompleteError(ArtifactError):
    """Files are missing or do not belong together: the artifact is damaged, or is being replaced."""


def unreadable(path: Path, error: OSError) -> IncompleteError:
    """Return an error that names the file which cannot be read."""
    raise_if_from_signal_handler(error)
    advice = "make it readable for this user" if isinstance(error, PermissionError) else "export the artifact again"
    return IncompleteError(f"cannot read {error.filename or path}: {files.error_message(error)}; {advice}")


def without_links(folder: Path) -> Path:
    """Return the folder that a link points to now: the artifact must not change with the link."""
    real = folder.resolve()
    return folder if real == folder.absolute() else real


def read_manifest(folder: str | Path) -> Manifest:
    """Return the manifest of an artifact without checking its model files.

    Raises:
        ArtifactError: it cannot be read, or has another schema version.
    """
    file = Path(folder) / MANIFEST_NAME
    try:
        with open(file, encoding="utf-8") as opened:
            return Manifest.from_json(opened.read(strict_json.MAX_CHARACTERS + 1), where=str(file))
    except UnicodeDecodeError as error:
        raise ArtifactError(f"{file} is not UTF-8 text; save it as UTF-8, or export the artifact again") from error
    except OSError as error:
        raise unreadable(file, error) from error


def read(path: str | Path) -> Artifact:
    """Return the artifact at `path` after checking the SHA-256 of every model file.

    If an export replaces the artifact at the same time, the old or the new one is returned.

    Args:
        path: the artifact's folder, or the manifest.json or model file in it.

    Raises:
        ArtifactError: missing, truncated or tampered with, or of another schema version.

    Example:
        artifacts.read("artifacts/1.5m/onnx-fp32").manifest.labels
    """
    for _ in range(READ_ATTEMPTS - 1):
        with contextlib.suppress(IncompleteError):
            return _read(Path(path))
        time.sleep(_READ_PAUSE_S)
    return _read(Path(path))


def _read(path: Path) -> Artifact:
    try:
        folder = path if path.is_dir() else path.parent
        if not path.exists():
            raise IncompleteError(f"no artifact at {path}; make one with: python export/to_onnx.py --variant 1.5m")
        if not (folder / MANIFEST_NAME).is_file():
            raise IncompleteError(
                f"{folder} has no {MANIFEST_NAME}; name an artifact's folder, such as artifacts/1.5m/onnx-fp32"
            )
        folder = without_links(folder)
        manifest = read_manifest(folder)
        model_file = folder / FORMATS[manifest.format].model_file
        if path.is_file() and path.name not in (MANIFEST_NAME, model_file.name):
            raise ArtifactError(f"{path} is not the model file of {folder}, which is {model_file.name}")
        _verify(folder, manifest)
    except OSError as error:
        raise unreadable(path, error) from error
    return Artifact(model_file, manifest)


def _verify(folder: Path, manifest: Manifest) -> None:
    """Raise ArtifactError unless the manifest lists all files of the format and their hashes match."""
    for name in FORMATS[manifest.format].files:
        if name not in manifest.files:
            raise ArtifactError(f"{folder / MANIFEST_NAME} does not list {name}; export the artifact again")
    for name, expected in manifest.files.items():
        if not (folder / name).is_file():
            raise IncompleteError(f"{folder / name} is missing; export the artifact again")
        if files.sha256(folder / name) != expected:
            raise IncompleteError(_DIFFERS.format(folder / name))


@contextlib.contextmanager
def publishing(folder: str | Path) -> Iterator[Path]:
    """Yield an empty temporary folder, which replaces `folder` if the block succeeds.

    Raises:
        ArtifactError: `folder` cannot be written, or the disk is full.
    """
    folder = Path(folder)
    with _remove_new_parents_on_failure(folder):
        temporary = _make_temporary(folder)
        try:
            new = temporary / "new"
            new.mkdir()
            yield new
            for path in (*new.rglob("*"), new):
                files.sync(path)
            _replace(folder, new, temporary)
        except BrokenPipeError:
            raise
        except OSError as error:  # perhaps of a vendor's temporary file in another folder
            failed = str(error.filename or temporary)
            what = folder if failed.startswith(str(temporary)) else failed
            reason = files.error_message(error)
            raise ArtifactError(f"cannot write {what}: {reason}; the old artifact is unchanged") from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def _remove_new_parents_on_failure(folder: Path) -> Iterator[None]:
    new = [parent for parent in folder.parents if not files.is_folder(parent)]
    try:
        yield
    except BaseException:  # Ctrl-C too
        for parent in new:
            with contextlib.suppress(OSError, ValueError):  # it was not made, or is not empty
                parent.rmdir()
        raise


def _make_temporary(folder: Path) -> Path:
    """Make a new folder beside `folder`, and remove those that killed exports left a day or longer ago."""
    if files.is_file(folder):
        raise ArtifactError(f"cannot write {folder}: it is a file; move it, or choose another folder with --artifacts")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for leftover in folder.parent.glob(f".{folder.name}.*"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - leftover.stat().st_mtime > _STALE_SECONDS:
                    shutil.rmtree(leftover, ignore_errors=True)
        return Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except (OSError, ValueError) as error:
        reason = files.error_message(error)
        raise ArtifactError(f"cannot write {folder}: {reason}; choose another folder with --artifacts") from error


def _replace(folder: Path, new: Path, temporary: Path) -> None:
    """Move the old artifact to `temporary` (a full folder cannot be replaced); rename `new` to `folder`."""
    for attempt in itertools.count():  # another process may publish the same artifact: the last one wins
        old = temporary / f"old-{attempt}"
        try:
            with contextlib.suppress(FileNotFoundError):
                os.replace(folder, old)
            os.replace(new, folder)
        except BaseException as error:  # Ctrl-C too
            with contextlib.suppress(OSError):  # it fails if the new artifact is already in place
                os.replace(old, folder)
            if not isinstance(error, OSError) or error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        else:
            break
    files.sync(folder.parent)


def write_manifest(folder: str | Path, manifest: Manifest) -> Artifact:
    """Write manifest.json, with the hashes of the model files in `folder`, and return the artifact."""
    folder = Path(folder)
    hashes = {file.name: files.sha256(file) for file in sorted(folder.iterdir()) if file.name != MANIFEST_NAME}
    manifest = dataclasses.replace(manifest, files=hashes)
    with files.replacing(folder / MANIFEST_NAME) as temporary:
        temporary.write_text(manifest.to_json(indent=2) + "\n", "utf-8")
    return Artifact(folder / FORMATS[manifest.format].model_file, manifest)
