"""Export a SimpleNet to a PyTorch program (.pt2) that runs without this project's model code.

    python export/to_torch.py --variant 1.5m
    python export/to_torch.py --variant cifar-310k --weights fashion-mnist
    python export/to_torch.py --variant 5.7m --weights random --batch dynamic

Batch norms are folded into the convolutions. Convolution weights are stored channels last, like the input images: the
fastest memory format on CPUs.
"""

from __future__ import annotations

import argparse
import io
import sys
import warnings
from pathlib import Path
from typing import Any

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from export import command_line, publish
from export.publish import BuildResult, ExportContext
from export.request import ExportRequest
from simplenet import cli
from simplenet.artifacts import Artifact
from simplenet.manifest import METADATA_KEY

PACKAGES = ("torch",)


def export_torch(**options: Any) -> Artifact:
    """Export one artifact; arguments and errors are those of `export.make`."""
    return publish.publish(ExportRequest("torch", **options), _build, PACKAGES)


def _build(context: ExportContext) -> BuildResult:
    import torch

    from export.export_model import ExportModel

    context.request.progress("exporting the PyTorch program")
    spec, loaded = context.input, context.loaded
    module = ExportModel(loaded.model, loaded.card.preprocessing if spec.dtype == "uint8" else None)
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it for modules
    dynamic = None if spec.batch else {"image": {0: torch.export.Dim("batch")}}
    program = torch.export.export(module, (module.example(spec.batch or 2, spec.height),), dynamic_shapes=dynamic)
    program.example_inputs = None  # they would be stored as a pickle
    for node in program.graph.nodes:
        for name in ("stack_trace", "nn_module_stack", "torch_fn"):  # contain file paths of this machine
            node.meta.pop(name, None)

    def save(model_file: Path, manifest_json: str) -> None:
        archive = io.BytesIO()  # not the file itself: on a full disk PyTorch's writer aborts the process
        with warnings.catch_warnings():
            # False alarm: channels-last weights look like views of a larger tensor.
            warnings.filterwarnings("ignore", "No complete tensor found in the group", UserWarning)
            torch.export.save(program, archive, extra_files={METADATA_KEY: manifest_json})
        model_file.write_bytes(archive.getbuffer())

    return BuildResult(save)


def build_parser() -> argparse.ArgumentParser:
    return command_line.build_parser(__doc__, "torch")


def main(argv: list[str] | None = None) -> int:
    return command_line.run(build_parser(), export_torch, argv)


if __name__ == "__main__":
    cli.run(main)
