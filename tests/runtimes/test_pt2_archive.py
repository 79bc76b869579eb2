"""Hostile .pt2 files: without validation, PyTorch runs the code in them."""

from __future__ import annotations

import contextlib
import io
import json
import os
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import runtimes
from export.to_torch import export_torch
from runtimes import pt2_archive
from simplenet import artifacts
from simplenet.errors import ArtifactError
from tests.conftest import MakeArtifact


class Pickled:
    """Runs a command when unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def as_pickle(command: str) -> bytes:
    content = io.BytesIO()
    torch.save((Pickled(command),), content)
    return content.getvalue()


def in_sample_inputs(records: dict[str, bytes], command: str) -> None:
    records["data/sample_inputs/model.pt"] = as_pickle(command)


def in_a_weight(records: dict[str, bytes], command: str) -> None:
    config = json.loads(records["data/weights/model_weights_config.json"])
    next(iter(config["config"].values()))["use_pickle"] = True
    records["data/weights/model_weights_config.json"] = json.dumps(config).encode()
    records["data/weights/weight_0"] = as_pickle(command)


def in_a_legacy_weights_file(records: dict[str, bytes], command: str) -> None:
    records["data/weights/model.pt"] = as_pickle(command)


def in_a_constant(records: dict[str, bytes], command: str) -> None:
    meta = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
    records["data/constants/model_constants_config.json"] = json.dumps({"config": {"x": meta}}).encode()
    records["data/constants/opaque_obj_0"] = as_pickle(command)


def in_a_shape(records: dict[str, bytes], command: str) -> None:
    program = json.loads(records["models/model.json"])
    expression = {"expr_str": f"__import__('os').system({command!r})", "hint": {"as_int": 1}}
    program["graph_module"]["graph"]["tensor_values"]["image"]["sizes"][0] = {"as_expr": expression}
    records["models/model.json"] = json.dumps(program).encode()


def in_a_guard(records: dict[str, bytes], command: str) -> None:
    program = json.loads(records["models/model.json"])
    program["guards_code"] = [f"__import__('os').system({command!r}) == 0"]
    records["models/model.json"] = json.dumps(program).encode()


def in_an_operator(records: dict[str, bytes], command: str) -> None:
    program = json.loads(records["models/model.json"])
    program["graph_module"]["graph"]["nodes"][0]["target"] = "torch.os.system"
    records["models/model.json"] = json.dumps(program).encode()


ATTACKS = [
    in_sample_inputs, in_a_weight, in_a_legacy_weights_file, in_a_constant, in_a_shape, in_a_guard, in_an_operator,
]  # fmt: skip


def rewritten(source: Path, target: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    with zipfile.ZipFile(source) as archive:
        records = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    change(records)
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in records.items():
            archive.writestr(f"archive/{name}", content)
    return target


@pytest.mark.parametrize("attack", ATTACKS)
def test_rejects_code_in_the_file_without_running_it(
    make_artifact: MakeArtifact, tmp_path: Path, attack: Callable[[dict[str, bytes], str], None]
) -> None:
    artifact, trace = make_artifact("torch", "fp32"), tmp_path / "it-ran"
    folder = tmp_path / "hostile"
    folder.mkdir()
    rewritten(artifact.model_file, folder / "model.pt2", lambda records: attack(records, f"touch {trace}"))
    artifacts.write_manifest(folder, artifact.manifest)  # an attacker can write a valid manifest, too
    with pytest.raises(ArtifactError, match="export it again"):
        runtimes.load(folder)
    assert not trace.exists()


@pytest.mark.parametrize("attack", [in_sample_inputs, in_a_shape])
def test_pytorch_itself_runs_the_code(
    make_artifact: MakeArtifact, tmp_path: Path, attack: Callable[[dict[str, bytes], str], None]
) -> None:
    artifact, trace = make_artifact("torch", "fp32"), tmp_path / "it-ran"
    file = rewritten(artifact.model_file, tmp_path / "model.pt2", lambda records: attack(records, f"touch {trace}"))
    with contextlib.suppress(Exception):  # an error after the code has run
        torch.export.load(file).module()(torch.zeros(1, 32, 32, 3, dtype=torch.uint8))
    assert trace.exists()


@pytest.mark.parametrize("options", [{}, {"batch": None}, {"batch": 2, "input": "float32"}])
def test_accepts_exported_programs(tmp_path: Path, options: dict[str, Any]) -> None:
    artifact = export_torch(variant="cifar-310k", weights="random", artifacts=tmp_path, **options)
    program = torch.export.load(pt2_archive.checked(artifact.model_file))
    assert len(program.state_dict) > 20
    embedded = pt2_archive.embedded_manifest(artifact.model_file)
    assert embedded is not None
    assert json.loads(embedded)["variant"] == "cifar-310k"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(data=st.data())
def test_damaged_files_are_rejected_or_harmless(
    make_artifact: MakeArtifact, tmp_path: Path, data: st.DataObject
) -> None:
    content = bytearray(make_artifact("torch", "fp32").model_file.read_bytes())
    kept = data.draw(st.integers(0, len(content)))
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= data.draw(st.integers(1, 255))
    damaged = tmp_path / "damaged.pt2"
    damaged.write_bytes(content[:kept])
    try:
        copy = pt2_archive.checked(damaged)
    except ArtifactError as error:  # no other exception
        message = str(error)
        assert "export it again" in message
        assert "\n" not in message
    else:  # for example a changed weight: PyTorch gets an intact archive without a pickle
        with zipfile.ZipFile(copy) as archive:
            assert archive.testzip() is None
            assert archive.read("archive/data/sample_inputs/model.pt") == b""


@pytest.mark.parametrize("year", [1970, 1979, 2044, 2110])  # a ZIP's dates are 1980 to 2107
def test_loads_whatever_the_clock_says(make_artifact: MakeArtifact, monkeypatch: pytest.MonkeyPatch, year: int) -> None:
    artifact = make_artifact("torch", "fp32")
    seconds = (year - 1970) * 365.25 * 86400
    real = time.localtime
    monkeypatch.setattr(time, "time", lambda: seconds)
    monkeypatch.setattr(time, "localtime", lambda when=seconds: real(when))
    with runtimes.load(artifact.model_file.parent, threads=1) as model:
        assert model.describe().backend == "torch"
