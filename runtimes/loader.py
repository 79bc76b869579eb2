"""Find backends by file name, and load an artifact with one of them."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path
from typing import cast

from runtimes.base import Options, Runtime
from simplenet import artifacts, files
from simplenet.artifacts import Artifact
from simplenet.errors import (
    ArtifactError,
    SimpleNetError,
    UsageError,
    check_choice,
    one_line,
    raise_if_from_signal_handler,
)
from simplenet.formats import FORMATS
from simplenet.manifest import MANIFEST_NAME, Manifest

_PREFIX = "backend_"


def names() -> tuple[str, ...]:
    """The names of all backends, installed or not: <name> of each file runtimes/backend_<name>.py."""
    return tuple(sorted(file.stem[len(_PREFIX) :] for file in Path(__file__).parent.glob(f"{_PREFIX}*.py")))


def backend_class(name: str) -> type[Runtime]:
    """The class in runtimes/backend_<name>.py; imports no vendor package.

    Raises:
        UsageError: unknown backend; the message lists the choices and suggests the closest.
    """
    check_choice("backend", name, names())
    module = importlib.import_module(f"runtimes.{_PREFIX}{name}")
    return cast("type[Runtime]", module.Backend)


def disable_spinning() -> None:
    """Let idle threads of every backend sleep, for the rest of this process.

    Use it where models share the CPU. Call it before PyTorch is imported, for example by an export: PyTorch reads the
    setting only then, and `load(allow_spinning=False)` cannot change it later.
    """
    for name in names():
        backend_class(name).disable_spinning()


def load(
    artifact: str | Path | Artifact,
    backend: str | None = None,
    *,
    device: str | None = None,
    threads: int | None = None,
    precision: str | None = None,
    allow_spinning: bool = True,
) -> Runtime:
    """Load an artifact.

    Args:
        artifact: its folder, its manifest.json, or a model file, with or without the manifest beside it.
        backend: one of `names()`; by default that of the artifact's format.
        device: 'cpu', 'cuda', 'gpu' or 'npu'; by default the backend's first (TensorRT: 'cuda').
        threads: CPU threads; by default all physical cores.
        precision: by default the artifact's; 'bf16' runs an fp32 artifact in bfloat16 if the backend supports it.
        allow_spinning: allow idle threads to busy-wait; pass False where models share the CPU.

    Raises:
        ArtifactError: the artifact is missing, damaged or tampered with.
        BackendUnavailable: a package, driver or device is missing. BackendError: the vendor's call failed.
        UsageError: unknown backend, or an option that it does not support.
    """
    options = Options(device=device, threads=threads, precision=precision, allow_spinning=allow_spinning)
    attempts = 1 if isinstance(artifact, Artifact) else artifacts.READ_ATTEMPTS
    while True:
        found = artifact if isinstance(artifact, Artifact) else read_artifact(artifact, backend)
        attempts -= 1
        try:
            return _class_for(found.manifest.format, backend)(found, options)
        except artifacts.IncompleteError:  # an export has replaced it since it was read
            if attempts == 0:
                raise


def read_artifact(path: str | Path, backend: str | None = None) -> Artifact:
    """Read an artifact's manifest without loading the model.

    Args:
        path: the artifact's folder, its manifest.json, or a model file.
        backend: the backend that reads an embedded manifest; by default that of the file's format.

    Raises:
        ArtifactError, BackendUnavailable, UsageError: as `load`.
    """
    try:
        path = Path(path)
    except TypeError:
        raise UsageError(f"name an artifact by its path, a str or Path, not {type(path).__name__}") from None
    is_bare = files.is_file(path) and path.name != MANIFEST_NAME and not files.is_file(path.parent / MANIFEST_NAME)
    return _read_bare(path, backend) if is_bare else artifacts.read(path)


def _class_for(format: str, backend: str | None) -> type[Runtime]:
    name = backend or FORMATS[format].default_backend
    backend_type = backend_class(name)
    if format not in backend_type.FORMATS:
        raise UsageError(f"{name} opens {' or '.join(backend_type.FORMATS)} artifacts, not {format}")
    return backend_type


def _read_bare(path: Path, backend: str | None) -> Artifact:
    """Read a model file without a manifest.json beside it, with the manifest inside the file."""
    path = artifacts.without_links(path.parent) / path.name
    formats = {Path(format.model_file).suffix: format.name for format in FORMATS.values()}
    if path.suffix not in formats:
        raise ArtifactError(f"{path} is not a model file; model files end in {', '.join(formats)}")
    reader = _class_for(formats[path.suffix], backend)
    try:
        sha256 = files.sha256(path)  # before the manifest is read: if the file changes after that, loading it fails
        text = reader.embedded_manifest(str(path))
    except SimpleNetError:
        raise
    except OSError as error:
        raise artifacts.unreadable(path, error) from error
    except Exception as error:
        raise_if_from_signal_handler(error)
        raise ArtifactError(f"{path} cannot be read: {one_line(error)}; export it again") from error
    if text is None:
        raise ArtifactError(
            f"{path} contains no manifest; put its manifest.json beside it, or export the model with this project"
        )
    manifest = Manifest.from_json(text, where=f"the manifest inside {path}")
    if manifest.format != formats[path.suffix]:
        raise ArtifactError(f"the manifest inside {path} is for another format, {manifest.format}; export it again")
    hashes = {**manifest.files, FORMATS[manifest.format].model_file: sha256}
    return Artifact(path, dataclasses.replace(manifest, files=hashes))
