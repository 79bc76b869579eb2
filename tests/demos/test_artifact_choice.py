"""From flags to a model: what is there is used, what is missing is made, and nobody is left in doubt which it is."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image

from demos import artifact_choice, compare
from demos.artifact_choice import artifact_precision, ensure_artifact, find_artifact, format_of
from simplenet import artifacts, datasets, weights
from simplenet.artifacts import Artifact
from simplenet.errors import ArtifactError, DataError, SimpleNetError, UsageError
from tests.conftest import MakeArtifact
from tests.demos.conftest import RunDemo


@pytest.fixture
def no_network(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SIMPLENET_WEIGHTS_URL", "SIMPLENET_CACHE"):
        monkeypatch.setenv(name, environment[name])
    artifact_choice._why_not_official.cache_clear()


@pytest.fixture
def own_root(onnx_artifact: Artifact, tmp_path: Path) -> Path:
    """A folder of artifacts with nothing but a copy of the shipped ONNX one."""
    shutil.copytree(onnx_artifact.folder, tmp_path / onnx_artifact.folder.parent.name / "onnx-fp32")
    return tmp_path


def rewrite(root: Path, folder: str, variant: str, weights: dict[str, str]) -> None:
    """Turns the copied artifact into one that claims another variant and other weights."""
    source, target = next(root.glob("*/onnx-fp32")), root / folder / "onnx-fp32"
    if source != target:
        shutil.copytree(source, target)
    manifest = artifacts.read(target).manifest
    origin = dataclasses.replace(manifest.weights, **weights)
    artifacts.write_manifest(target, dataclasses.replace(manifest, variant=variant, weights=origin))


def never(message: str) -> None:
    raise AssertionError(f"nothing should be said, but: {message}")


def test_formats_and_precisions_follow_the_backends() -> None:
    assert [format_of(name) for name in ("torch", "onnxruntime", "openvino", "tensorrt")] == [
        "torch", "onnx", "openvino", "tensorrt",
    ]  # fmt: skip
    assert artifact_precision("openvino", "bf16") == "fp32"
    assert artifact_precision("openvino", "int8") == "int8"
    with pytest.raises(UsageError, match=r"onnxruntime does not compute in bf16; choose --backend .*openvino or torch"):
        artifact_precision("onnxruntime", "bf16")
    with pytest.raises(UsageError, match="did you mean 'openvino'"):
        format_of("openvin")


def test_what_is_there_is_used_without_a_word(onnx_artifact: Artifact) -> None:
    root = onnx_artifact.folder.parents[1]
    for asked in ("fashion-mnist", "auto"):
        assert ensure_artifact("simplenet_cifar_310k", asked, "onnx", "fp32", root, never) == onnx_artifact


def test_an_artifact_of_older_shipped_weights_does_not_count(own_root: Path) -> None:
    assert find_artifact("cifar-310k", "fashion-mnist", "onnx", "fp32", own_root) is not None
    rewrite(own_root, "cifar-310k-fashion-mnist", "cifar-310k", {"sha256": "0" * 64})
    assert find_artifact("cifar-310k", "fashion-mnist", "onnx", "fp32", own_root) is None


def test_a_damaged_artifact_is_an_error_and_stays(own_root: Path) -> None:
    model = next(own_root.glob("*/onnx-fp32")) / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1])
    before = model.read_bytes()
    with pytest.raises(ArtifactError, match="SHA-256"):
        ensure_artifact("cifar-310k", "fashion-mnist", "onnx", "fp32", own_root, never)
    assert model.read_bytes() == before


def test_a_checkpoint_is_found_by_its_content_under_whatever_name(own_root: Path, tmp_path: Path) -> None:
    shipped = datasets.SHIPPED / "fashion-mnist" / "cifar-310k.safetensors"
    copy = tmp_path / "renamed.safetensors"
    shutil.copy(shipped, copy)
    found = find_artifact("cifar-310k", str(copy), "onnx", "fp32", own_root)
    assert found is not None
    assert found.folder.parent.name == "cifar-310k-fashion-mnist"
    copy.write_bytes(copy.read_bytes()[:-1] + b"x")
    assert find_artifact("cifar-310k", str(copy), "onnx", "fp32", own_root) is None
    assert find_artifact("cifar-310k", str(tmp_path / "missing.pth"), "onnx", "fp32", own_root) is None
    (found.folder / "model.onnx").write_bytes(b"damaged")  # is the others' affair
    assert find_artifact("cifar-310k", str(copy), "onnx", "fp32", own_root) is None


@pytest.mark.usefixtures("no_network")
def test_auto_prefers_official_weights_then_says_what_it_took_instead(own_root: Path) -> None:
    rewrite(own_root, "1.5m-random", "1.5m", {"source": "random", "name": "random"})
    said: list[str] = []
    found = ensure_artifact("1.5m", "auto", "onnx", "fp32", own_root, said.append)
    assert found.manifest.weights.source == "random"
    assert len(said) == 1
    assert "cannot download" in said[0]
    assert "RANDOM" in said[0]
    rewrite(own_root, "1.5m", "1.5m", {"source": "pretrained", "name": "pretrained"})
    assert ensure_artifact("1.5m", "auto", "onnx", "fp32", own_root, never).manifest.weights.source == "pretrained"


@pytest.mark.usefixtures("no_network")
def test_several_artifacts_are_of_one_network_or_not_compared(own_root: Path) -> None:
    wanted = [("openvino", "fp32"), ("onnx", "fp32")]
    said: list[str] = []
    assert artifact_choice.choose_weights("1.5m", "auto", wanted, own_root, said.append) == "random"
    assert "RANDOM" in said[0]
    rewrite(own_root, "1.5m", "1.5m", {"source": "pretrained", "name": "pretrained"})
    assert artifact_choice.choose_weights("simplenetv1_small_m2_05", "auto", wanted, own_root, never) == "pretrained"
    assert artifact_choice.choose_weights("1.5m", "random", wanted, own_root, never) == "random"

    other = own_root / "1.5m" / "onnx-fp16"
    shutil.copytree(own_root / "1.5m" / "onnx-fp32", other)
    manifest = artifacts.read(other).manifest
    origin = dataclasses.replace(manifest.weights, sha256="0" * 64)
    artifacts.write_manifest(other, dataclasses.replace(manifest, precision="fp16", weights=origin))
    flags = ["--variant", "1.5m", "--backend", "onnxruntime", "--precision", "fp32,fp16"]
    with pytest.raises(SimpleNetError, match="were made from different weights; remove the old ones"):
        compare.main([*flags, "--artifacts", str(own_root)])


@pytest.mark.usefixtures("no_network")
def test_the_default_is_the_official_model_or_else_the_shipped_one(own_root: Path) -> None:
    said: list[str] = []
    found = artifact_choice.default_artifact("onnx", "fp32", own_root, said.append)
    assert found.manifest.variant == "cifar-5m"
    assert "using cifar-5m trained on cifar10" in said[0]
    assert found.manifest.weights.name == "cifar10"
    with_pictures = artifact_choice.best_shipped("int8")  # which cannot be calibrated without
    assert with_pictures == ("cifar-310k", "fashion-mnist")
    rewrite(own_root, "1.5m", "1.5m", {"source": "pretrained", "name": "pretrained"})
    assert artifact_choice.default_artifact("onnx", "fp32", own_root, never).manifest.variant == "1.5m"


def test_a_missing_artifact_is_made_once_and_random_weights_are_marked_everywhere(
    run_demo: RunDemo, tmp_path: Path
) -> None:
    picture = tmp_path / "gray.png"
    Image.new("L", (50, 40), 128).save(picture)
    flags = (picture, "--variant", "cifar-310k", "--weights", "random", "--json")
    first = run_demo("classify", *flags, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "making the onnx fp32 artifact of cifar-310k (weights: random) in artifacts" in first.stderr
    assert "UNTRAINED" in first.stderr
    second = run_demo("classify", *flags, cwd=tmp_path)
    assert "making" not in second.stderr
    assert second.stderr.count("\n") == 1  # UNTRAINED, in one line
    for result in (first, second):
        report = json.loads(result.stdout)
        assert report["untrained"] is True
        assert report["weights"]["source"] == "random"
        assert len(report["images"][0]["predictions"]) == 5


def test_what_int8_asks_for_can_be_typed(run_demo: RunDemo, tmp_path: Path) -> None:
    shipped = weights.load("cifar-310k", "fashion-mnist")
    nameless = dataclasses.replace(shipped.card, labels=())  # so that nobody knows which pictures belong to it
    weights.save(tmp_path / "mine.safetensors", shipped.model.state_dict(), nameless)
    Image.new("L", (28, 28), 128).save(tmp_path / "1.png")
    flags = (tmp_path / "1.png", "--variant", "cifar-310k", "--weights", tmp_path / "mine.safetensors")
    refused = run_demo("classify", *flags, "--precision", "int8", cwd=tmp_path)
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1].endswith("a few hundred typical ones: --calibration DIR")
    # Without a model's name it is the best one, which needs the pictures too.
    flags = (tmp_path / "1.png", "--precision", "int8", "--calibration", tmp_path / "typo")
    typo = run_demo("classify", *flags, cwd=tmp_path)
    assert "using cifar-5m trained on cifar10" in typo.stderr
    assert typo.stderr.splitlines()[-1].startswith(f"error: '{tmp_path / 'typo'}' is neither a folder of images nor")


def test_int8_from_other_pictures_is_made_anew(
    make_artifact: MakeArtifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_artifact("onnx", "int8")
    shutil.copytree(made.folder, tmp_path / made.folder.parent.name / "onnx-int8")
    wanted = ("cifar-310k", "fashion-mnist", "onnx", "int8", tmp_path)
    for same in ("auto", "fashion-mnist"):
        assert ensure_artifact(*wanted, never, same).manifest == made.manifest
    pixels = datasets.shipped("fashion-mnist", "calibration").images
    folders = [tmp_path / "one" / "train", tmp_path / "other" / "train"]  # of one name
    for turn, folder in enumerate(folders):
        folder.mkdir(parents=True)
        for index in range(150):
            Image.fromarray(pixels[2 * index + turn]).save(folder / f"{index}.png")
    said: list[str] = []
    calibration = ensure_artifact(*wanted, said.append, folders[0]).manifest.calibration
    assert calibration is not None
    assert calibration["source"] == "train"
    assert len(said) == 1
    assert ensure_artifact(*wanted, never, folders[0]).manifest.calibration == calibration
    (tmp_path / "empty").mkdir()
    for wrong in (tmp_path / "empty", tmp_path / "typo"):
        with pytest.raises(DataError, match=str(wrong)):
            ensure_artifact(*wanted, never, wrong)
    monkeypatch.setitem(sys.modules, "torch", None)  # as on a device: then the one that is there is better than none
    for other in ("fashion-mnist", "synthetic", folders[1]):
        assert ensure_artifact(*wanted, said.append, other).manifest.calibration == calibration
        assert said[-1].startswith("using the one from other pictures: torch cannot be imported")


def test_flags_that_exclude_each_other_are_refused(run_demo: RunDemo, onnx_artifact: Artifact) -> None:
    for flags in (("--variant", "1.5m"), ("--weights", "random"), ("--calibration", "synthetic")):
        result = run_demo("classify", "x.png", "--artifact", onnx_artifact.folder, *flags)
        assert result.returncode == 2
        assert "--artifact names the model already; leave out --variant, --weights and" in result.stderr
        assert result.stderr.count("\n") == 1
        assert result.stdout == ""
    result = run_demo("classify", "x.png", "--backend", "onnxruntime", "--precision", "bf16", "--variant", "cifar-310k")
    assert result.returncode == 2
    assert "does not compute in bf16" in result.stderr
