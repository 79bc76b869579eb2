"""Write an artifact: load weights, convert, check against PyTorch, then rename the folder into place."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from export import agreement, calibration
from export.calibration import ImageBatch
from export.request import ExportRequest
from runtimes.loader import backend_class
from simplenet import artifacts, files, preprocessing
from simplenet.artifacts import Artifact
from simplenet.errors import ArtifactError, ExportError, one_line
from simplenet.formats import FORMATS
from simplenet.manifest import InputSpec, Manifest
from simplenet.vendors import vendor_import

if TYPE_CHECKING:
    import onnx

    from simplenet.weights import LoadedWeights


@dataclass(frozen=True)
class ExportContext:
    """Input of every exporter: the request, the loaded network, and values derived from them."""

    request: ExportRequest
    loaded: LoadedWeights

    @cached_property
    def input(self) -> InputSpec:
        layout, size = "NHWC" if self.request.input == "uint8" else "NCHW", self.loaded.card.preprocessing.input_size
        return InputSpec("image", self.request.input, layout, size, size, self.request.batch)

    @cached_property
    def calibration(self) -> ImageBatch:
        """Images to calibrate int8 with; raises DataError if there are none, or poor ones."""
        self.request.progress("reading calibration images")
        return calibration.for_calibration(self.loaded, self.request.calibration, self.request.allow_poor_calibration)

    @cached_property
    def check_images(self) -> ImageBatch:
        """Images on which the exported model is compared with PyTorch."""
        return calibration.for_checking(self.loaded, self.request.calibration, self.request.precision)

    @cached_property
    def varied_images(self) -> ImageBatch | None:
        """Other images, on which int8 is compared with PyTorch too."""
        return calibration.varied(self.loaded) if self.request.precision == "int8" else None

    def model_inputs(self, images: ImageBatch) -> npt.NDArray[Any]:
        """`images` in the layout and dtype of the exported model: uint8 [N, S, S, 3] or float32 [N, 3, S, S]."""
        return preprocessing.model_batch(images.inputs, self.input.dtype, self.loaded.card.preprocessing)

    def calibration_inputs(self) -> npt.NDArray[Any]:
        """`model_inputs` of the calibration images; reports the progress step 'calibrating'."""
        self.request.progress(f"calibrating with {len(self.calibration)} images")
        return self.model_inputs(self.calibration)

    def onnx_graph(self, half: bool = False) -> onnx.ModelProto:
        """The network as an ONNX graph; see `onnx_graph.build`."""
        from export import onnx_graph

        self.request.progress("exporting to ONNX")
        return onnx_graph.build(self.loaded.model, self.loaded.card.preprocessing, self.input, half)

    def check_inputs(self) -> npt.NDArray[Any]:
        """`model_inputs` of `check_images`, then of `varied_images`."""
        batches = (self.check_images, self.varied_images)
        return np.concatenate([self.model_inputs(batch) for batch in batches if batch])

    def compare_with_pytorch(self, logits: npt.NDArray[Any]) -> dict[str, Any]:
        """Compare logits for `check_inputs` with PyTorch's, and return the manifest's `measured`."""
        request, images, untrained = self.request, self.check_images, self.loaded.origin.source == "random"
        logits, varied_logits = np.split(logits, [len(images)])
        expected = agreement.reference_logits(self.loaded, images)
        measured = agreement.compare_outputs(logits, expected, images, request.precision, untrained, request.max_drop)
        if self.varied_images:
            measured["varied"] = agreement.compare_on_varied(
                varied_logits,
                agreement.reference_logits(self.loaded, self.varied_images),
                self.varied_images,
                agreement.relative_error(logits, expected),
                required=not untrained,
                allow_poor=request.allow_poor_calibration,
            )
        return measured


@dataclass(frozen=True)
class BuildResult:
    """A converted model in memory, and how to write it.

    Attributes:
        save: `save(model_file, manifest_json)` writes the model files and embeds the JSON if the format supports it.
            Called twice: before the check, which runs the real file, and after it, with the measurements in the JSON.
        calibration_method: how int8 was calibrated, for the manifest.
        target: GPUs and TensorRT version of an engine, for the manifest.
        check: `check(artifact)` returns the manifest's `measured` or raises AgreementError. Default: run the model file
            on its runtime and compare its logits with PyTorch's.
    """

    save: Callable[[Path, str], None]
    calibration_method: str | None = None
    target: dict[str, Any] | None = None
    check: Callable[[Artifact], dict[str, Any]] | None = None


def publish(request: ExportRequest, build: Callable[[ExportContext], BuildResult], packages: Sequence[str]) -> Artifact:
    """Build, check and publish one artifact; after any failure the old artifact is unchanged.

    Args:
        build: converts the network to the request's format.
        packages: modules that the export needs; their versions go into the manifest.

    Raises:
        WeightsError, DataError: the weights or the calibration images cannot be loaded.
        ExportError, AgreementError: the model cannot be converted, or its logits differ too much from PyTorch's.
        ArtifactError: the artifact cannot be written. BackendUnavailable: a package is missing.
    """
    for package in ("safetensors", *packages):  # slow imports, so only after the flags are checked
        vendor_import(package, "export")
    from simplenet import weights
    from simplenet.model import torch_defaults

    with torch_defaults():
        if request.network is not None:
            loaded = request.network()
        else:
            loaded = weights.load(
                request.variant, request.weights, overrides=request.overrides, key=request.weights_key
            )
        context = ExportContext(request, loaded)
        folder = artifacts.folder_for(
            request.artifacts,
            loaded.card.variant,
            loaded.origin.name,
            request.format,
            request.precision,
            input_dtype=request.input,
            batch=request.batch,
        )
        with artifacts.publishing(folder) as temporary:
            model_file = temporary / FORMATS[request.format].model_file
            manifest = _write(model_file, context, build, packages)
        return Artifact(folder / model_file.name, manifest)


def _write(
    model_file: Path, context: ExportContext, build: Callable[[ExportContext], BuildResult], packages: Sequence[str]
) -> Manifest:
    """Build, write and check the model files, then write manifest.json beside them."""
    request, measured = context.request, dict[str, Any]()
    if request.precision == "int8":
        _ = context.calibration  # fails early if there are no images, or poor ones
    elif request.precision == "fp16":
        request.progress("checking the range of fp16")
        images = calibration.for_fp16_range(context.loaded, request.calibration)
        measured["fp16_range"] = agreement.check_fp16_range(context.loaded, images)
    built = build(context)
    manifest = _manifest(context, built, packages)
    built.save(model_file, manifest.to_json())
    request.progress("checking against PyTorch")
    artifact = Artifact(model_file, manifest)
    measured |= built.check(artifact) if built.check else run_and_compare(artifact, context)
    others = {name: files.sha256(model_file.with_name(name)) for name in FORMATS[request.format].files[1:]}
    manifest = dataclasses.replace(manifest, measured=measured, files=others)
    built.save(model_file, manifest.to_json())
    manifest = artifacts.write_manifest(model_file.parent, manifest).manifest
    _check_readable(model_file, manifest)
    return manifest


def _check_readable(model_file: Path, manifest: Manifest) -> None:
    """Raise ExportError unless manifest.json and the model file's own manifest are readable and equal."""
    try:
        on_disk = artifacts.read(model_file.parent).manifest
        backend = backend_class(FORMATS[manifest.format].default_backend)
        text = backend.embedded_manifest(str(model_file))
        embedded = manifest if text is None else Manifest.from_json(text, where=str(model_file))
    except ArtifactError as error:
        raise ExportError(
            f"the artifact could not be loaded again ({one_line(error.__cause__ or error)}); "
            "use fewer or shorter labels, or other flags"
        ) from error
    hashes = embedded.files | {model_file.name: manifest.files[model_file.name]}  # no file contains its own hash
    if dataclasses.replace(embedded, files=hashes) != on_disk:
        raise ExportError(f"{manifest.format} did not keep the manifest in its file; export it with other labels")


def run_and_compare(artifact: Artifact, context: ExportContext) -> dict[str, Any]:
    """Run the model file on its default runtime and compare its logits with PyTorch's."""
    return context.compare_with_pytorch(agreement.run(artifact, context.check_inputs()))


def _manifest(context: ExportContext, built: BuildResult, packages: Sequence[str]) -> Manifest:
    card = context.loaded.card
    method = built.calibration_method
    return Manifest(
        variant=card.variant,
        format=context.request.format,
        precision=context.request.precision,
        weights=context.loaded.origin,
        num_classes=card.num_classes,
        input=context.input,
        preprocessing=card.preprocessing,
        labels=card.labels,
        class_ids=card.class_ids,
        preprocessing_source=context.loaded.preprocessing_source,
        calibration={"method": method, **calibration.manifest_entry(context.calibration)} if method else None,
        target=built.target,
        tools={package: str(importlib.import_module(package).__version__) for package in packages},
    )
