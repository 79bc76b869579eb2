"""A small artifact, for tests of artifacts and manifests."""

from __future__ import annotations

from pathlib import Path

from simplenet import artifacts
from simplenet.artifacts import Artifact
from simplenet.formats import FORMATS
from simplenet.manifest import InputSpec, Manifest, WeightsOrigin
from simplenet.preprocessing import CIFAR10_PREPROCESSING

MANIFEST = Manifest(
    variant="cifar-310k",
    format="onnx",
    precision="int8",
    weights=WeightsOrigin("shipped", "fashion-mnist", "ab" * 32),
    num_classes=2,
    input=InputSpec("images", "uint8", "NHWC", 32, 32, batch=None),
    preprocessing=CIFAR10_PREPROCESSING,
    labels=("cat", "狗"),
    calibration={"images": 500},
    tools={"onnx": "1.18"},
    measured={"cosine": 0.99999},
)


def publish(folder: Path, content: bytes = b"model", manifest: Manifest = MANIFEST) -> Artifact:
    with artifacts.publishing(folder) as fresh:
        for name in FORMATS[manifest.format].files:
            (fresh / name).write_bytes(content)
        return artifacts.write_manifest(fresh, manifest)
