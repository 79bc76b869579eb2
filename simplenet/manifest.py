"""The manifest: all that a runtime knows about a model, as JSON that is checked when it is read."""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass, field
from typing import Any

from simplenet import strict_json
from simplenet.errors import ArtifactError, UsageError, one_line
from simplenet.formats import FORMATS, PRECISIONS
from simplenet.preprocessing import Preprocessing

MANIFEST_SCHEMA_VERSION = 1
MANIFEST_NAME = "manifest.json"
MAX_BATCH = 1024
METADATA_KEY = "simplenet_manifest"
"""Key of the manifest in ONNX `metadata_props`, OpenVINO `rt_info` and torch.export's extra files."""

_WEIGHTS_SOURCES = ("pretrained", "shipped", "checkpoint", "random")
_FOLDER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")  # safe in the paths of `folder_for`


@dataclass(frozen=True)
class InputSpec:
    """The model's input: uint8 NHWC RGB, normalized inside the graph, or normalized float32 NCHW.

    `batch` is the fixed batch size, or None for a dynamic one.
    """

    name: str
    dtype: str
    layout: str
    height: int
    width: int
    batch: int | None = 1

    @property
    def shape(self) -> tuple[int | None, int, int, int]:
        """The shape in `layout`'s order, with None for a dynamic batch."""
        if self.layout == "NHWC":
            return (self.batch, self.height, self.width, 3)
        return (self.batch, 3, self.height, self.width)


@dataclass(frozen=True)
class WeightsOrigin:
    """Where weights come from.

    `source` is pretrained, shipped, checkpoint or random. `sha256` is the hash of the file, or of the random tensors.
    `key` is that of --weights-key, if it was given.
    """

    source: str
    name: str
    sha256: str
    key: str | None = None


@dataclass(frozen=True)
class Manifest:
    """Everything that a runtime knows about a model; runtimes do not read the variant table."""

    variant: str
    format: str
    precision: str
    weights: WeightsOrigin
    num_classes: int
    input: InputSpec
    preprocessing: Preprocessing
    labels: tuple[str, ...] = ()
    class_ids: tuple[str, ...] = ()
    preprocessing_source: str = "unknown"
    """Where preprocessing and labels come from: 'model card', 'official checkpoint of 1.5m', 'flags --mean, --std',
    'flags --size; mean, std, labels assumed for 1.5m', 'assumed for 1.5m', 'random weights'.
    Manifests of older versions have none: 'unknown'."""
    output: str = "logits"
    calibration: dict[str, Any] | None = None
    """int8: the method, the image set and the number of images."""
    target: dict[str, Any] | None = None
    """TensorRT: the builder, version, operating system and GPUs of the engine."""
    tools: dict[str, str] = field(default_factory=dict)
    measured: dict[str, Any] = field(default_factory=dict)
    """Measurements at export: agreement with PyTorch, and accuracy if there were labeled images."""
    files: dict[str, str] = field(default_factory=dict)
    """SHA-256 by model file name. In a manifest inside a model file, only of the other files."""
    schema_version: int = MANIFEST_SCHEMA_VERSION

    @property
    def preprocessing_doubt(self) -> str:
        """What a demo shows: 'preprocessing: assumed for cifar-310k'; '' if it is known."""
        is_unknown = self.preprocessing_source == "unknown" and self.weights.source == "checkpoint"
        is_assumed = "assumed" in self.preprocessing_source
        return f"preprocessing: {self.preprocessing_source}" if is_unknown or is_assumed else ""

    def to_json(self, indent: int | None = None) -> str:
        """Return the manifest as JSON; raise ArtifactError for a value that is not finite or not JSON."""
        try:
            return json.dumps(dataclasses.asdict(self), indent=indent, allow_nan=False)
        except (ValueError, TypeError) as error:
            raise ArtifactError(f"the manifest cannot be written ({one_line(error)}); export it again") from error

    @classmethod
    def from_json(cls, text: str, where: str) -> Manifest:
        """Parse and check a manifest; raise ArtifactError, which names `where`, if it is not valid."""
        try:
            values = strict_json.loads(text)
            version = values["schema_version"]
            if type(version) is not int:
                raise ValueError(f"schema version {version!r}")
            if version != MANIFEST_SCHEMA_VERSION:
                advice = "update this program" if version > MANIFEST_SCHEMA_VERSION else "export it again"
                raise ArtifactError(
                    f"{where} has manifest schema version {version}, this program reads {MANIFEST_SCHEMA_VERSION}; "
                    f"{advice}"
                )
            values["weights"] = WeightsOrigin(**values["weights"])
            values["input"] = InputSpec(**values["input"])
            values["preprocessing"] = Preprocessing.from_json(values["preprocessing"])
            for name in ("labels", "class_ids"):
                values[name] = strict_json.plain_strings(values.get(name, []))
            manifest = cls(**values)
            manifest._check()
            return manifest
        except (ValueError, TypeError, KeyError, AttributeError, UsageError) as error:
            what = f"no {error}" if isinstance(error, KeyError) else one_line(error)
            raise ArtifactError(f"{where} is not a valid manifest ({what}); export the artifact again") from error

    def _check(self) -> None:
        """Raise ValueError for values that no export writes."""
        if not isinstance(self.format, str) or self.format not in FORMATS or self.precision not in PRECISIONS:
            raise ValueError(f"format {self.format!r}, precision {self.precision!r}")
        for name in (self.variant, self.weights.name):
            if not isinstance(name, str) or not _FOLDER_NAME.fullmatch(name):
                raise ValueError(f"the name {name!r}")
        if self.weights.source not in _WEIGHTS_SOURCES or not isinstance(self.weights.sha256, str):
            raise ValueError(f"weights from {self.weights.source!r}")
        if not isinstance(self.weights.key, str | None):
            raise ValueError(f"the key {self.weights.key!r}")
        self._check_input()
        if type(self.num_classes) is not int or not 2 <= self.num_classes <= 1_000_000:
            raise ValueError(f"num_classes {self.num_classes!r}")
        if any(names and len(names) != self.num_classes for names in (self.labels, self.class_ids)):
            raise ValueError("the number of labels is not the number of classes")
        if not isinstance(self.output, str):
            raise ValueError(f"output {self.output!r}")
        if not strict_json.is_plain_string(self.preprocessing_source) or len(self.preprocessing_source) > 200:
            raise ValueError("a preprocessing_source that is no short text")
        optional = [table for table in (self.calibration, self.target) if table is not None]
        if not all(isinstance(table, dict) for table in (*optional, self.tools, self.measured, self.files)):
            raise ValueError("a list or a value instead of an object")
        if any(not _is_file_name(name) or not isinstance(sha256, str) for name, sha256 in self.files.items()):
            raise ValueError("a model file outside the artifact's folder")

    def _check_input(self) -> None:
        spec = self.input
        if not isinstance(spec.name, str) or (spec.dtype, spec.layout) not in (("uint8", "NHWC"), ("float32", "NCHW")):
            raise ValueError(f"input {spec.name!r} {spec.dtype!r} {spec.layout!r}")
        size = self.preprocessing.input_size
        if type(spec.height) is not int or type(spec.width) is not int or (spec.height, spec.width) != (size, size):
            raise ValueError(f"input {spec.height!r}x{spec.width!r}, preprocessing {size}")
        if spec.batch is not None and not (type(spec.batch) is int and 1 <= spec.batch <= MAX_BATCH):
            raise ValueError(f"batch {spec.batch!r}")


def _is_file_name(name: str) -> bool:
    """Whether a name is a file in the same folder on every operating system."""
    return strict_json.is_plain_string(name) and name not in ("", ".", "..") and not set(name) & set("/\\:")
