"""Export a SimpleNet to a PyTorch program (.pt2) that runs without this project's model code.

    python export/to_torch.py --variant 1.5m
    python export/to_torch.py --variant cifar-310k --weights fashion-mnist
    python export/to_torch.py --variant 5.7m --weights random --batch dynamic

Batch norms are folded and convolution weights lie channels last, as the pictures do: the fastest layout on processors.
"""

from __future__ import annotations

import argparse
import io
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from export import publish, request
from export.publish import BuildResult, ExportContext
from export.request import ExportOptions, ExportRequest
from simplenet import cli
from simplenet.artifacts import METADATA_KEY, Artifact

if TYPE_CHECKING:
    from typing_extensions import Unpack

PACKAGES = ("torch",)


def export_torch(**options: Unpack[ExportOptions]) -> Artifact:
    """Exports one artifact. Keyword arguments and their defaults are those of `export.request.ExportRequest`.

    Raises:
        UsageError, WeightsError, DataError, ExportError, AgreementError, ArtifactError, BackendUnavailable.
    """
    what = ExportRequest(**options)
    what.check("torch")
    return publish.publish(what, "torch", _build, PACKAGES)


def _build(context: ExportContext, model_file: Path) -> BuildResult:
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
        for name in ("stack_trace", "nn_module_stack", "torch_fn"):  # paths on this machine are nobody else's business
            node.meta.pop(name, None)

    def save(embedded: str) -> None:
        archive = io.BytesIO()  # not straight to the file: PyTorch's writer aborts the process where the disk is full
        with warnings.catch_warnings():
            # Said of views of a larger tensor, which these contiguous channels-last weights are mistaken for.
            warnings.filterwarnings("ignore", "No complete tensor found in the group", UserWarning)
            torch.export.save(program, archive, extra_files={METADATA_KEY: embedded})
        model_file.write_bytes(archive.getbuffer())

    return BuildResult(save)


def build_parser() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__)
    request.add_flags(parser, "torch")
    return parser


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    with request.shown_progress() as progress:
        artifact = export_torch(**request.options_from(args), progress=progress)
    request.print_result(artifact, args.json)
    return 0


if __name__ == "__main__":
    cli.run(main)
