"""The flags that name a model, and the model that they name, loaded."""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import runtimes
from demos import artifact_choice
from demos.artifact_choice import Log
from simplenet import cli, variants
from simplenet.artifacts import Artifact
from simplenet.errors import UntrainedWarning, UsageError
from simplenet.formats import PRECISIONS


def add_model(to: argparse.ArgumentParser, *, several_backends: bool = False) -> None:
    """The flags that `load` reads: which model, and how to run it; with `several_backends`, --backend takes A,B or all.

    Then its value is still text: `several` reads it.
    """
    to.add_argument(
        "--artifact",
        type=cli.path,
        metavar="PATH",
        help="an artifact's folder, or a model file that carries its manifest",
    )
    to.add_argument(
        "--variant",
        type=cli.variant_name,
        metavar="NAME",
        help=f"{', '.join(variants.VARIANTS)} (default: the one that the --weights are shipped for; "
        f"{artifact_choice.DEFAULT_VARIANT} if its official weights can be had; else the best one that is shipped)",
    )
    cli.add_weights(to)
    to.add_argument(
        "--backend",
        type=str if several_backends else cli.choice("backend", runtimes.names()),
        metavar="A,B|all" if several_backends else "NAME",
        help=f"{', '.join(runtimes.names())} (default: the artifact's, else {artifact_choice.DEFAULT_BACKEND})",
    )
    to.add_argument(
        "--precision",
        type=cli.choice("precision", PRECISIONS),
        metavar="NAME",
        help=f"{', '.join(PRECISIONS)} (default: the artifact's, else fp32)",
    )
    to.add_argument("--device", metavar="NAME", help="cpu, cuda, gpu or npu, as far as the backend has it")
    cli.add_calibration(to)
    cli.add_artifacts(to)
    cli.add_threads(to)


def load(arguments: argparse.Namespace, log: Log = cli.log, *, allow_spinning: bool = True) -> runtimes.Runtime:
    """The model that the flags of `add_model` ask for, loaded; says so where its weights are random.

    `allow_spinning` as in `runtimes.load`: off where several models take turns.

    Raises:
        UsageError: flags that exclude each other, or a backend that cannot run so.
        SimpleNetError: whatever `ensure_artifact` and `runtimes.load` raise.
    """
    source: Path | Artifact
    if arguments.artifact is not None:
        if arguments.variant is not None or (arguments.weights, arguments.calibration) != ("auto", "auto"):
            raise UsageError("--artifact names the model already; leave out --variant, --weights and --calibration")
        source = arguments.artifact
    else:
        backend = arguments.backend = arguments.backend or artifact_choice.DEFAULT_BACKEND
        precision = artifact_choice.artifact_precision(backend, arguments.precision or "fp32")
        made_for = (artifact_choice.format_of(backend), precision, arguments.artifacts, log, arguments.calibration)
        if arguments.variant is None and arguments.weights == "auto":
            source = artifact_choice.default_artifact(*made_for)
        else:
            variant = (
                arguments.variant
                or artifact_choice.shipped_variant(arguments.weights)
                or artifact_choice.DEFAULT_VARIANT
            )
            source = artifact_choice.ensure_artifact(variant, arguments.weights, *made_for)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UntrainedWarning)  # said below, in one line
        model = runtimes.load(
            source,
            arguments.backend,
            device=arguments.device,
            threads=arguments.threads,
            precision=arguments.precision,
            allow_spinning=allow_spinning,
        )
    if is_untrained(model):
        log(f"UNTRAINED: {model.artifact.folder} has random weights; times are real, answers mean nothing")
    return model


def is_untrained(model: runtimes.Runtime) -> bool:
    """Whether the weights are random: answers must then be marked UNTRAINED wherever they are shown."""
    return model.manifest.weights.source == "random"
