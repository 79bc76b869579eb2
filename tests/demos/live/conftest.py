"""What the live demo's tests share: flags as typed, with artifacts that are there already."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import pytest

from demos import artifact_choice
from tests.conftest import MakeArtifact

ParseFlags = Callable[..., argparse.Namespace]


@pytest.fixture
def parse_flags(make_artifact: MakeArtifact) -> ParseFlags:
    """`parse_flags("--precision", "int8")`: the model flags of the live demo, for the shipped model, on one thread."""

    def parse(*typed: str) -> argparse.Namespace:
        parser = argparse.ArgumentParser()
        parser.add_argument("--top", type=int, default=5)
        artifact_choice.add_model(parser, several_backends=True)
        root = make_artifact("onnx", "fp32").folder.parents[1]
        shipped = ("--variant", "cifar-310k", "--weights", "fashion-mnist", "--artifacts", str(root), "--threads", "1")
        return parser.parse_args([*shipped, *typed])

    return parse
