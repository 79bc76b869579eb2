"""Artifacts: a model file and its manifest, the contract between the machine that exports and the device that runs.

artifacts/<variant>[-<weights>]/<format>-<precision>/
    manifest.json, and model.onnx | model.xml + model.bin | model.pt2 | model.engine
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simplenet import files
from simplenet.errors import ArtifactError, UsageError
from simplenet.model_card import preprocessing_from_json
from simplenet.preprocessing import Preprocessing

MANIFEST_SCHEMA_VERSION = 1
MANIFEST_NAME = "manifest.json"
MODEL_FILES = {"torch": "model.pt2", "onnx": "model.onnx", "openvino": "model.xml", "tensorrt": "model.engine"}
FORMATS = tuple(MODEL_FILES)
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
METADATA_KEY = "simplenet_manifest"
"""Key of the manifest's JSON inside ONNX `metadata_props`, OpenVINO `rt_info` and torch.export extra files."""

_LARGEST_MANIFEST_BYTES = 4 << 20


@dataclass(frozen=True)
class InputSpec:
    """The model's one input: uint8 NHWC RGB that the graph normalises itself, or normalised float32 NCHW.

    `batch` is the fixed batch size, or None where any size works.
    """

    name: str
    dtype: str
    layout: str
    height: int
    width: int
    batch: int | None = 1

    @property
    def shape(self) -> tuple[int | None, int, int, int]:
        """With None for a dynamic batch."""
        if self.layout == "NHWC":
            return (self.batch, self.height, self.width, 3)
        return (self.batch, 3, self.height, self.width)


@dataclass(frozen=True)
class WeightsOrigin:
    """`source`: pretrained, shipped, checkpoint or random; `sha256`: of the file, or of the tensors if random."""

    source: str
    name: str
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Everything a runtime may know of a model. Runtimes trust only this, never the variant table."""

    variant: str
    format: str
    precision: str
    weights: WeightsOrigin
    num_classes: int
    input: InputSpec
    preprocessing: Preprocessing
    labels: tuple[str, ...] = ()
    class_ids: tuple[str, ...] = ()
    output: str = "logits"
    calibration: dict[str, Any] | None = None
    """int8: the method, which pictures and how many."""
    target: dict[str, Any] | None = None
    """TensorRT: which builder, version, operating system and GPUs the engine was built for."""
    tools: dict[str, str] = field(default_factory=dict)
    measured: dict[str, Any] = field(default_factory=dict)
    """What was measured at export: agreement with PyTorch, and accuracy where there were labelled pictures."""
    files: dict[str, str] = field(default_factory=dict)
    """Model file names and their SHA-256. Empty in the copy inside a model file."""
    schema_version: int = MANIFEST_SCHEMA_VERSION

    def to_json(self, indent: int | None = None) -> str:
        return json.dumps(dataclasses.asdict(self), indent=indent)

    @classmethod
    def from_json(cls, text: str, where: str) -> Manifest:
        """Raises ArtifactError, naming `where`, for anything but a manifest of this schema version."""
        try:
            values = json.loads(text)
            version = values["schema_version"]
            if version != MANIFEST_SCHEMA_VERSION:
                newer = isinstance(version, int) and version > MANIFEST_SCHEMA_VERSION
                raise ArtifactError(
                    f"{where} has manifest schema version {version}, this program reads {MANIFEST_SCHEMA_VERSION}; "
                    + ("update this program" if newer else "export it again")
                )
            values["weights"] = WeightsOrigin(**values["weights"])
            values["input"] = InputSpec(**values["input"])
            values["preprocessing"] = preprocessing_from_json(values["preprocessing"])
            for name in ("labels", "class_ids"):
                values[name] = tuple(map(str, values.get(name, ())))
            manifest = cls(**values)
            manifest._check()
            return manifest
        except (ValueError, TypeError, KeyError, AttributeError, UsageError) as error:
            raise ArtifactError(f"{where} is not a valid manifest ({error!r}); export the artifact again") from error

    def _check(self) -> None:
        """Raises ValueError for values no export writes."""
        if self.format not in FORMATS or self.precision not in PRECISIONS:
            raise ValueError(f"format {self.format!r}, precision {self.precision!r}")
        if (self.input.dtype, self.input.layout) not in (("uint8", "NHWC"), ("float32", "NCHW")):
            raise ValueError(f"input {self.input.dtype} {self.input.layout}")
        if (self.input.height, self.input.width) != (self.preprocessing.input_size,) * 2:
            raise ValueError(
                f"input {self.input.height}x{self.input.width}, preprocessing {self.preprocessing.input_size}"
            )
        if not (self.input.batch is None or (isinstance(self.input.batch, int) and 1 <= self.input.batch <= 65_536)):
            raise ValueError(f"batch {self.input.batch!r}")
        if not isinstance(self.num_classes, int) or self.num_classes < 1:
            raise ValueError(f"num_classes {self.num_classes!r}")
        if any(names and len(names) != self.num_classes for names in (self.labels, self.class_ids)):
            raise ValueError("the number of labels is not the number of classes")
        if not isinstance(self.files, dict) or any(Path(name).name != name for name in self.files):
            raise ValueError("a model file outside the artifact's folder")


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
        names = self.manifest.files or {self.model_file.name: ""}
        return sum((self.folder / name).stat().st_size for name in names)


def folder_for(root: str | Path, variant: str, weights_name: str, format: str, precision: str) -> Path:
    """artifacts/<variant>[-<weights>]/<format>-<precision>; official weights have no suffix."""
    suffix = "" if weights_name == "pretrained" else f"-{weights_name}"
    return Path(root) / f"{variant}{suffix}" / f"{format}-{precision}"


def read(path: str | Path) -> Artifact:
    """The artifact in a folder (or that a manifest.json or a model file beside one stands for), every file verified.

    Raises:
        ArtifactError: missing, truncated or tampered with, or written by another schema version.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    manifest_file = folder / MANIFEST_NAME
    if not path.exists():
        raise ArtifactError(f"no artifact at {path}; make one with: python export/to_onnx.py --variant 1.5m")
    if not manifest_file.is_file():
        raise ArtifactError(
            f"{folder} has no {MANIFEST_NAME}; name an artifact's folder, such as artifacts/1.5m/onnx-fp32"
        )
    try:
        if manifest_file.stat().st_size > _LARGEST_MANIFEST_BYTES:
            raise ArtifactError(f"{manifest_file} is too large to be a manifest; export the artifact again")
        manifest = Manifest.from_json(manifest_file.read_text("utf-8"), where=str(manifest_file))
        model_file = folder / MODEL_FILES[manifest.format]
        if model_file.name not in manifest.files:
            raise ArtifactError(f"{manifest_file} does not list {model_file.name}; export the artifact again")
        for name, expected in manifest.files.items():
            if not (folder / name).is_file():
                raise ArtifactError(f"{folder / name} is missing; export the artifact again")
            if files.sha256(folder / name) != expected:
                raise ArtifactError(
                    f"{folder / name} is not the file its manifest describes (SHA-256 differs); export it again"
                )
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(f"cannot read {folder}: {error}; export the artifact again") from error
    if path.is_file() and path.name not in (MANIFEST_NAME, model_file.name):
        raise ArtifactError(f"{path} is not the model file of {folder}, which is {model_file.name}")
    return Artifact(model_file, manifest)


@contextmanager
def publishing(folder: str | Path) -> Iterator[Path]:
    """Yields an empty temporary folder; when the block ends well it takes the place of `folder`, else nothing changes.

    Raises:
        ArtifactError: the place cannot be written, or the disk is full.
    """
    folder = Path(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        workplace = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise ArtifactError(
            f"cannot write {folder}: {error.strerror or error}; choose another place with --artifacts"
        ) from error
    try:
        fresh, old = workplace / "fresh", workplace / "old"
        fresh.mkdir()
        try:
            yield fresh
            # A folder cannot be renamed over a full one: the old artifact steps aside first, and back if that fails.
            if folder.exists():
                os.replace(folder, old)
            try:
                os.replace(fresh, folder)
            except OSError:
                if old.exists():
                    os.replace(old, folder)
                raise
        except OSError as error:
            raise ArtifactError(
                f"cannot write {folder}: {error.strerror or error}; what was there is untouched"
            ) from error
    finally:
        shutil.rmtree(workplace, ignore_errors=True)


def write_manifest(folder: str | Path, manifest: Manifest) -> Artifact:
    """Hashes the model files in `folder`, writes manifest.json beside them and returns the artifact."""
    folder = Path(folder)
    hashes = {file.name: files.sha256(file) for file in sorted(folder.iterdir()) if file.name != MANIFEST_NAME}
    manifest = dataclasses.replace(manifest, files=hashes)
    with files.replacing(folder / MANIFEST_NAME) as temporary:
        temporary.write_text(manifest.to_json(indent=2) + "\n", "utf-8")
    return Artifact(folder / MODEL_FILES[manifest.format], manifest)
