"""Model requests: existing artifacts are used, missing ones are exported, and the log tells which weights."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import runtimes.loader
from demos import compare, default_models, models
from demos.default_models import weights_for_classes
from demos.models import ModelRequest, artifact_precision, format_of, precisions_of
from simplenet import artifacts, checkpoints, datasets, model, weights
from simplenet.artifacts import Artifact
from simplenet.errors import ArtifactError, DataError, SimpleNetError, UsageError
from tests.conftest import MakeArtifact
from tests.demos.conftest import RunDemo
from train.data import DATASETS


@pytest.fixture
def own_root(onnx_artifact: Artifact, tmp_path: Path) -> Path:
    """A folder of artifacts with only a copy of the shipped ONNX one."""
    shutil.copytree(onnx_artifact.folder, tmp_path / onnx_artifact.folder.parent.name / "onnx-fp32")
    return tmp_path


def shipped(root: Path, weights: str = "fashion-mnist") -> ModelRequest:
    return ModelRequest(variant="cifar-310k", weights=weights, artifacts_root=root)


def rewrite(root: Path, folder: str, variant: str, weights: dict[str, str]) -> None:
    """Turn the copied artifact into one that claims another variant and other weights."""
    source, target = next(root.glob("*/onnx-fp32")), root / folder / "onnx-fp32"
    if source != target:
        shutil.copytree(source, target)
    manifest = artifacts.read(target).manifest
    origin = dataclasses.replace(manifest.weights, **weights)
    artifacts.write_manifest(target, dataclasses.replace(manifest, variant=variant, weights=origin))


def never(message: str) -> None:
    raise AssertionError(f"nothing should be logged, but: {message}")


def write_classes(folder: Path, names: tuple[str, ...], split: str = "test") -> Path:
    for name in names:
        (folder / split / name).mkdir(parents=True)
        Image.fromarray(np.full((32, 32, 3), 99, np.uint8)).save(folder / split / name / "0.png")
    return folder


def test_precisions_follow_formats_and_backends() -> None:
    own = models.backends()[:4]  # backends that were added follow
    assert own == ("torch", "onnxruntime", "openvino", "tensorrt")
    assert [format_of(name).name for name in own] == ["torch", "onnx", "openvino", "tensorrt"]
    assert [precisions_of(name) for name in ("torch", "onnxruntime", "openvino")] == [
        ("fp32", "bf16"), ("fp32", "fp16", "int8"), ("fp32", "fp16", "bf16", "int8"),
    ]  # fmt: skip
    assert artifact_precision("openvino", "bf16") == "fp32"
    assert artifact_precision("openvino", "int8") == "int8"
    with pytest.raises(UsageError, match=r"onnxruntime does not run in bf16; .* or --backend torch or openvino"):
        artifact_precision("onnxruntime", "bf16")
    with pytest.raises(UsageError, match="did you mean 'openvino'"):
        format_of("openvin")


def test_new_backend_is_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    class Backend:
        FORMATS, PRECISIONS = ("onnx",), {"fp32": ("bf16",)}

    known = runtimes.loader.backend_class
    monkeypatch.setattr(runtimes, "names", lambda: ("acme", *runtimes.loader.names()))
    monkeypatch.setattr(models, "backend_class", lambda name: Backend if name == "acme" else known(name))
    assert "acme" in models.backends()[4:]
    assert precisions_of("acme") == ("fp32", "fp16", "bf16", "int8")


def test_existing_artifact_is_used_silently(onnx_artifact: Artifact) -> None:
    root = onnx_artifact.folder.parents[1]
    for named in ("fashion-mnist", "auto"):
        request = ModelRequest(variant="simplenet_cifar_310k", weights=named, artifacts_root=root)
        assert request.resolve(never) == onnx_artifact
    assert ModelRequest(artifact=onnx_artifact.folder).resolve(never) == onnx_artifact


def test_artifact_of_older_shipped_weights_is_ignored(own_root: Path) -> None:
    assert shipped(own_root).find() is not None
    rewrite(own_root, "cifar-310k-fashion-mnist", "cifar-310k", {"sha256": "0" * 64})
    assert shipped(own_root).find() is None


def test_damaged_artifact_is_an_error_and_stays(own_root: Path) -> None:
    model = next(own_root.glob("*/onnx-fp32")) / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1])
    before = model.read_bytes()
    with pytest.raises(ArtifactError, match="SHA-256"):
        shipped(own_root).resolve(never)
    assert model.read_bytes() == before


def test_checkpoint_is_found_by_content_not_name(own_root: Path, tmp_path: Path) -> None:
    copy = tmp_path / "renamed.safetensors"
    shutil.copy(datasets.SHIPPED / "fashion-mnist" / "cifar-310k.safetensors", copy)
    found = shipped(own_root, str(copy)).find()
    assert found is not None
    assert found.folder.parent.name == "cifar-310k-fashion-mnist"
    copy.write_bytes(copy.read_bytes()[:-1] + b"x")
    assert shipped(own_root, str(copy)).find() is None
    assert shipped(own_root, str(tmp_path / "missing.pth")).find() is None
    (found.folder / "model.onnx").write_bytes(b"damaged")  # not this checkpoint's artifact
    assert shipped(own_root, str(copy)).find() is None


@pytest.mark.filterwarnings("ignore::simplenet.errors.SimpleNetWarning")
@pytest.mark.slow
def test_artifacts_of_two_weights_keys_are_two(tmp_path: Path) -> None:
    raw, averaged = (model.create("cifar-310k", seed=seed).state_dict() for seed in (1, 2))
    torch.save({"model": raw, "model_ema": averaged}, tmp_path / "a.pth")
    flags = ["--variant", "cifar-310k", "--weights", str(tmp_path / "a.pth"), "--artifacts", str(tmp_path)]
    parser = argparse.ArgumentParser()
    models.add_flags(parser)
    found = []
    for key in ([], ["--weights-key", "model"]):
        request = ModelRequest.from_flags(parser.parse_args([*flags, *key, "--backend", "torch"]))
        assert request.find() is None
        artifact = request.resolve(lambda line: None)
        assert artifact.manifest.weights.key == (key[1] if key else None)
        again = request.find()
        assert again is not None
        assert again.folder == artifact.folder
        found.append(artifact.folder)
    assert found[0] != found[1]
    with pytest.raises(UsageError, match="--weights-key is for a checkpoint; type --weights PATH"):
        replace(shipped(tmp_path), weights_key="model").resolve(lambda line: None)


def test_guessed_preprocessing_is_shown_until_flags_give_it(
    run_demo: RunDemo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stripped = weights.load("cifar-310k", "fashion-mnist").model.state_dict()
    torch.save(stripped, tmp_path / "mine.pth")
    model = ("--variant", "cifar-310k", "--weights", tmp_path / "mine.pth", "--artifacts", tmp_path)
    Image.new("RGB", (40, 40), "red").save(tmp_path / "a.png")
    guessed = run_demo("classify", tmp_path / "a.png", *model, "--json")
    assert "warning:" in guessed.stderr
    assert "mine.pth has no model card; assumed for cifar-310k: mean 0.4914" in guessed.stderr
    assert json.loads(guessed.stdout)["preprocessing_source"] == "assumed for cifar-310k"
    again = run_demo("evaluate", "fashion-mnist", *model)  # the same artifact: nothing is exported
    assert "exporting" not in again.stderr
    assert "onnx-fp32: preprocessing: assumed for cifar-310k; if it is wrong, type --dataset" in again.stderr
    assert "if it was trained on fashion-mnist, type --dataset fashion-mnist" in again.stderr
    (tmp_path / "names").write_text("\n".join(DATASETS["fashion-mnist"].labels))
    mean_std = "--mean 0.286 0.286 0.286 --std 0.353 0.353 0.353"
    all_flags = "flags --mean, --std, --size, --resize, --padding, --labels"
    for flags, source, top1 in (
        ("--dataset fashion-mnist", "flags --dataset fashion-mnist", (94, 95)),
        ("--dataset cifar10 --labels names", "flags --dataset cifar10, --labels", (40, 60)),
        (f"{mean_std} --size 32 --resize 28 --padding 2 --labels names", all_flags, (94, 95)),
    ):
        arguments = ("fashion-mnist", *model, *flags.split(), "--json")
        exported, found = (run_demo("evaluate", *arguments, cwd=tmp_path) for _ in range(2))
        assert exported.stdout == found.stdout
        assert (exported.stderr.count("exporting"), found.stderr) == (1, "")
        report = json.loads(found.stdout)
        assert report["preprocessing_source"] == source
        assert top1[0] < report["top1_percent"] < top1[1]
    assert run_demo("classify", tmp_path / "a.png", *model).stderr.count("exporting") == 1  # not the flags' artifact
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert "preprocessing: assumed for cifar-310k" in run_demo("classify", tmp_path / "a.png", *model).stdout
    some = ("--dataset", "fashion-mnist", "--mean", "0.286", "0.286", "0.286")
    assert "preprocessing" not in run_demo("evaluate", "fashion-mnist", "--limit", 9, *model, *some).stdout
    named = [f"--{name}={value}" for name, value in (("size", 32), ("labels", "names"))]
    evaluated = run_demo("evaluate", "fashion-mnist", "--limit", 9, *model, *named, cwd=tmp_path)
    source = "flags --size, --labels; mean, std, resize, padding assumed for cifar-310k"
    assert f"\npreprocessing: {source}\n" in evaluated.stdout


def test_flags_of_preprocessing_need_weights(run_demo: RunDemo) -> None:
    for demo, first in (
        ("classify", "x.png"),
        ("evaluate", "fashion-mnist"),
        ("compare", "--limit=9"),
        ("webcam", "--loop"),
    ):
        result = run_demo(demo, first, "--mean", "0", "0", "0")
        assert result.returncode == 2
        assert result.stderr == "error: --mean: name the weights that this describes, --weights PATH or NAME\n"


@pytest.mark.usefixtures("no_network")
def test_auto_weights_prefer_official_ones(own_root: Path) -> None:
    request = ModelRequest(variant="1.5m", artifacts_root=own_root)
    rewrite(own_root, "1.5m-random", "1.5m", {"source": "random", "name": "random"})
    logged: list[str] = []
    assert request.resolve(logged.append).manifest.weights.source == "random"
    assert len(logged) == 1
    assert "cannot download" in logged[0]
    assert "RANDOM" in logged[0]
    rewrite(own_root, "1.5m", "1.5m", {"source": "pretrained", "name": "pretrained"})
    assert request.resolve(never).manifest.weights.source == "pretrained"


@pytest.mark.usefixtures("no_network")
def test_compared_artifacts_have_the_same_weights(own_root: Path) -> None:
    request = ModelRequest(variant="simplenetv1_small_m2_05", artifacts_root=own_root)
    requests = [replace(request, backend=backend) for backend in ("openvino", "onnxruntime")]
    logged: list[str] = []
    assert {each.weights for each in models.with_named_model(requests, logged.append)} == {"random"}
    assert "RANDOM" in logged[0]
    rewrite(own_root, "1.5m", "1.5m", {"source": "pretrained", "name": "pretrained"})
    named = models.with_named_model(requests, never)
    assert {(each.variant, each.weights) for each in named} == {("1.5m", "pretrained")}
    assert models.with_named_model([replace(request, weights="random")], never)[0].weights == "random"

    other = own_root / "1.5m" / "onnx-fp16"
    shutil.copytree(own_root / "1.5m" / "onnx-fp32", other)
    manifest = artifacts.read(other).manifest
    origin = dataclasses.replace(manifest.weights, sha256="0" * 64)
    artifacts.write_manifest(other, dataclasses.replace(manifest, precision="fp16", weights=origin))
    flags = ["--variant", "1.5m", "--backend", "onnxruntime", "--precision", "fp32,fp16"]
    with pytest.raises(SimpleNetError, match="were made from different weights; remove the old ones"):
        compare.main([*flags, "--artifacts", str(own_root)])


@pytest.mark.usefixtures("no_network")
def test_default_model_is_official_or_shipped(own_root: Path) -> None:
    request = ModelRequest(artifacts_root=own_root)
    logged: list[str] = []
    (named,) = models.with_named_model([request], logged.append)
    assert (named.variant, named.weights) == ("cifar-5m", "cifar10")
    assert "using cifar-5m trained on cifar10" in logged[0]
    assert default_models.best_shipped(needs_shipped_images=True) == ("cifar-310k", "fashion-mnist")
    (named,) = models.with_named_model([replace(request, weights="mnist")], never)
    assert named.variant == "cifar-310k"
    rewrite(own_root, "1.5m", "1.5m", {"source": "pretrained", "name": "pretrained"})
    assert request.resolve(never).manifest.variant == "1.5m"


def test_missing_artifact_is_exported_once(run_demo: RunDemo, tmp_path: Path) -> None:
    image = tmp_path / "gray.png"
    Image.new("L", (50, 40), 128).save(image)
    flags = (image, "--variant", "cifar-310k", "--weights", "random", "--json")
    first = run_demo("classify", *flags, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "exporting the onnx fp32 artifact of cifar-310k (weights: random) to artifacts" in first.stderr
    assert "UNTRAINED" in first.stderr
    second = run_demo("classify", *flags, cwd=tmp_path)
    assert "exporting" not in second.stderr
    assert second.stderr.count("\n") == 1  # UNTRAINED, in one line
    for result in (first, second):
        report = json.loads(result.stdout)
        assert report["untrained"] is True
        assert report["weights"]["source"] == "random"
        assert len(report["images"][0]["predictions"]) == 5


def test_int8_without_images_names_the_flag(run_demo: RunDemo, tmp_path: Path) -> None:
    loaded = weights.load("cifar-310k", "fashion-mnist")
    nameless = dataclasses.replace(loaded.card, labels=())  # so that no shipped images belong to it
    checkpoints.save(tmp_path / "mine.safetensors", loaded.model.state_dict(), nameless)
    Image.new("L", (28, 28), 128).save(tmp_path / "1.png")
    flags = (tmp_path / "1.png", "--variant", "cifar-310k", "--weights", tmp_path / "mine.safetensors")
    refused = run_demo("classify", *flags, "--precision", "int8", cwd=tmp_path)
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1].endswith("--calibration DIR")
    # The default model with own calibration images is the best shipped one, whatever the folder.
    flags = (tmp_path / "1.png", "--precision", "int8", "--calibration", tmp_path / "typo")
    typo = run_demo("classify", *flags, cwd=tmp_path)
    assert "using cifar-5m trained on cifar10" in typo.stderr
    assert typo.stderr.splitlines()[-1].startswith(f"error: '{tmp_path / 'typo'}' is neither a folder of ")


@pytest.mark.slow
def test_int8_with_other_calibration_is_exported_again(
    make_artifact: MakeArtifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_artifact("onnx", "int8")
    shutil.copytree(made.folder, tmp_path / made.folder.parent.name / "onnx-int8")
    request = replace(shipped(tmp_path), precision="int8")
    for same in ("auto", "fashion-mnist"):
        assert replace(request, calibration=same).resolve(never).manifest == made.manifest
    pixels = datasets.shipped("fashion-mnist", "calibration").images
    folders = [tmp_path / "one" / "train", tmp_path / "other" / "train"]  # of one name
    for offset, folder in enumerate(folders):
        folder.mkdir(parents=True)
        for index in range(150):
            Image.fromarray(pixels[2 * index + offset]).save(folder / f"{index}.png")
    logged: list[str] = []
    in_first_folder = replace(request, calibration=str(folders[0]))
    calibration = in_first_folder.resolve(logged.append).manifest.calibration
    assert calibration is not None
    assert calibration["source"] == "train"
    assert len(logged) == 1
    assert in_first_folder.resolve(never).manifest.calibration == calibration
    (tmp_path / "empty").mkdir()
    for wrong in (tmp_path / "empty", tmp_path / "typo"):
        with pytest.raises(DataError, match=str(wrong)):
            replace(request, calibration=str(wrong)).resolve(never)
    monkeypatch.setitem(sys.modules, "torch", None)  # as on a device: the existing artifact is better than none
    for other in ("fashion-mnist", "synthetic", str(folders[1])):
        found = replace(request, calibration=other).resolve(logged.append)
        assert found.manifest.calibration == calibration
        assert logged[-1].startswith("using the artifact that was calibrated with other images: torch cannot be")


def test_rejects_artifact_with_other_model_flags(run_demo: RunDemo, onnx_artifact: Artifact) -> None:
    described = (("--std", "1", "1", "1"), ("--size", "64"), ("--dataset", "svhn"))
    for flags in (("--variant", "1.5m"), ("--weights", "random"), ("--calibration", "synthetic"), *described):
        result = run_demo("classify", "x.png", "--artifact", onnx_artifact.folder, *flags)
        assert result.returncode == 2
        assert "--artifact has model, preprocessing and labels already; leave out" in result.stderr
        assert flags[0] in result.stderr
        assert result.stderr.count("\n") == 1
        assert result.stdout == ""
    result = run_demo("classify", "x.png", "--backend", "onnxruntime", "--precision", "bf16", "--variant", "cifar-310k")
    assert result.returncode == 2
    assert "does not run in bf16" in result.stderr


def test_flags_become_one_request() -> None:
    parser = argparse.ArgumentParser()
    models.add_flags(parser)
    assert ModelRequest.from_flags(parser.parse_args([])) == ModelRequest()
    typed = "--variant 3m --weights random --backend torch --precision bf16 --device cpu --threads 2 --artifacts x"
    assert ModelRequest.from_flags(parser.parse_args([*typed.split(), "--calibration", "synthetic"])) == ModelRequest(
        "3m", "random", None, "torch", "bf16", "cpu", 2, "synthetic", Path("x")
    )


@pytest.mark.parametrize(("dataset", "split"), [("cifar10", "test"), ("mnist", "val")])
def test_weights_are_found_by_their_classes(dataset: str, split: str, tmp_path: Path) -> None:
    write_classes(tmp_path, DATASETS[dataset].labels, split)
    assert weights_for_classes(tmp_path / split, "cifar-310k") == dataset


def test_weights_must_know_every_class(tmp_path: Path) -> None:
    folder = write_classes(tmp_path, ("frog", "ship")) / "test"
    assert weights_for_classes(folder, "cifar-5m") == "cifar10"
    write_classes(tmp_path, ("teapot",))
    with pytest.raises(DataError, match=r"no shipped weights of cifar-5m have the classes in .*--weights PATH"):
        weights_for_classes(folder, "cifar-5m")
    assert weights_for_classes(folder, "1.5m") == "auto"


def test_rejects_data_set_without_test_images(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has neither test/<class>/\* nor val/<class>/\*; add one"):
        compare.main(["--data", str(tmp_path)])
    with pytest.raises(DataError, match=r"there is no folder .*nowhere; name the dataset's folder"):
        compare.main(["--data", str(tmp_path / "nowhere")])
    (tmp_path / "test/cat").mkdir(parents=True)
    with pytest.raises(DataError, match=r"no images in"):
        compare.main(["--data", str(tmp_path)])


def test_named_weights_win_over_a_data_sets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_classes(tmp_path, ("frog", "ship"))
    flags = ["--weights", "mnist", "--backend", "torch", "--precision", "fp32", "--artifacts", str(tmp_path / "made")]
    with pytest.raises(DataError, match=r"is named after a class of the model \(such as '0'\)"):
        compare.main(["--data", str(folder), *flags])
    with pytest.raises(SystemExit):
        compare.main(["--data", str(folder), "--image", str(folder)])
    assert "not allowed with" in capsys.readouterr().err
