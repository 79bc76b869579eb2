"""Finding backends by their file names, and loading an artifact with the right one."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import cast

from runtimes.base import Options, Runtime
from simplenet import artifacts, files, variants
from simplenet.artifacts import Artifact
from simplenet.errors import ArtifactError, SimpleNetError, UsageError, one_line
from simplenet.formats import FORMATS

_PREFIX = "backend_"


def names() -> tuple[str, ...]:
    """Every backend: each is one file runtimes/backend_<name>.py. Whether it can run here, `load` tells."""
    return tuple(sorted(file.stem[len(_PREFIX) :] for file in Path(__file__).parent.glob(f"{_PREFIX}*.py")))


def backend_class(name: str) -> type[Runtime]:
    """The class in runtimes/backend_<name>.py; imports no vendor package.

    Raises:
        UsageError: no such backend; the message lists the choices and the nearest one.
    """
    if name not in names():
        raise UsageError(
            f"unknown backend {name!r}{variants.nearest(name, names())}; choose from: {', '.join(names())}"
        )
    module = importlib.import_module(f"runtimes.{_PREFIX}{name}")
    return cast("type[Runtime]", module.Backend)


def disable_spinning() -> None:
    """Let idle threads of every backend sleep, in this process and for good.

    Call it before an export or a load where several models will share the processor: `load(allow_spinning=False)` alone
    comes too late for PyTorch, if an export imports PyTorch first.
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
    """Loads an artifact: its folder, its manifest, or a model file, with or without a manifest beside it.

    Args:
        backend: one of `names()`; by default the one of the artifact's format.
        device: 'cpu', 'cuda', 'gpu' or 'npu', as far as the backend has it; by default its first (TensorRT: 'cuda').
        threads: CPU threads; by default all physical cores.
        precision: by default the artifact's own; 'bf16' runs an fp32 artifact in bfloat16 where the backend can.
        allow_spinning: whether idle threads may spin; turn it off where models share the processor.

    Raises:
        ArtifactError: missing, damaged or tampered with. BackendUnavailable: a package, driver or device is missing.
        UsageError: unknown backend, or one that cannot run this artifact so. BackendError: the vendor refused it.
    """
    options = Options(device=device, threads=threads, precision=precision, allow_spinning=allow_spinning)
    if not isinstance(artifact, Artifact):
        artifact = read_artifact(artifact, backend)
    return _class_for(artifact.manifest.format, backend)(artifact, options)


def read_artifact(path: str | Path, backend: str | None = None) -> Artifact:
    """Read an artifact without opening it: its folder, its manifest, or a model file with an embedded manifest.

    Args:
        backend: the one that reads an embedded manifest; by default the one of the file's format.

    Raises:
        ArtifactError, BackendUnavailable, UsageError: as `load`.
    """
    path = Path(path)
    bare = (
        files.is_file(path)
        and path.name != artifacts.MANIFEST_NAME
        and not files.is_file(path.parent / artifacts.MANIFEST_NAME)
    )
    return _read_bare(path, backend) if bare else artifacts.read(path)


def _class_for(format: str, backend: str | None) -> type[Runtime]:
    chosen = backend_class(backend or FORMATS[format].default_backend)
    if format not in chosen.FORMATS:
        name = chosen.__module__.rpartition(_PREFIX)[2]
        raise UsageError(f"{name} opens {' or '.join(chosen.FORMATS)} artifacts, not {format}")
    return chosen


def _read_bare(path: Path, backend: str | None) -> Artifact:
    """A model file that was copied without its manifest.json: the copy of the manifest inside it serves."""
    formats = {Path(format.model_file).suffix: format.name for format in FORMATS.values()}
    if path.suffix not in formats:
        raise ArtifactError(f"{path} is not a model file; those end in {', '.join(formats)}")
    reader = _class_for(formats[path.suffix], backend)
    try:
        text = reader.embedded_manifest(str(path))
    except SimpleNetError:
        raise
    except Exception as error:
        raise ArtifactError(f"{path} cannot be read: {one_line(error)}; export it again") from error
    if text is None:
        raise ArtifactError(
            f"{path} carries no manifest; keep its manifest.json beside it, or export it with this project"
        )
    manifest = artifacts.Manifest.from_json(text, where=f"the manifest inside {path}")
    if manifest.format != formats[path.suffix]:
        raise ArtifactError(f"the manifest inside {path} is of another format, {manifest.format}; export it again")
    return Artifact(path, manifest)
