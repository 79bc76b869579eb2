"""Reading untrusted checkpoints."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from simplenet import checkpoints, labels, model, weights
from simplenet.errors import SimpleNetError, SimpleNetWarning, WeightsError
from simplenet.manifest import WeightsOrigin
from simplenet.preprocessing import Preprocessing
from tests.simplenet.networks import VARIANT, Tensors, card, same, sha256, state

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.filterwarnings("ignore::simplenet.errors.AssumedCardWarning")


def write(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def test_a_checkpoint_with_a_card_round_trips(tmp_path: Path) -> None:
    path = tmp_path / "My Net (v2).safetensors"
    named = card(num_classes=4, labels=("a", "b", "c", "d"), training={"top1": 91.2})
    checkpoints.save(path, state(num_classes=4), named)
    loaded = weights.load(VARIANT, str(path))
    assert same(loaded, state(num_classes=4))
    assert loaded.card == named
    assert loaded.origin == WeightsOrigin("checkpoint", f"my-net-v2-{sha256(path)[:8]}", sha256(path))
    assert not loaded.model.training


@pytest.mark.parametrize("num_classes", [2, 7, 10, 100, 1000])
@pytest.mark.parametrize("wrap", ["plain", "state_dict", "model", "module", "legacy", "safetensors"])
def test_checkpoints_of_any_number_of_classes(tmp_path: Path, num_classes: int, wrap: str) -> None:
    tensors = state(num_classes=num_classes)
    path = tmp_path / "net.pth"
    if wrap == "module":
        write(path, {"state_dict": {f"module.{name}": tensor for name, tensor in tensors.items()}, "epoch": 3})
    elif wrap == "legacy":
        torch.save(tensors, path, _use_new_zipfile_serialization=False)
    elif wrap == "safetensors":
        path = tmp_path / "net.safetensors"
        save_file(tensors, path)
    else:
        write(path, tensors if wrap == "plain" else {wrap: tensors, "epoch": 3, "optimizer": {"lr": [0.1]}})
    loaded = weights.load(VARIANT, path)
    assert same(loaded, tensors)
    assert loaded.card.num_classes == num_classes


@pytest.mark.parametrize("wrap", ["plain", "card"])
def test_rejects_one_output_with_the_two_outputs_that_answer_alike(tmp_path: Path, wrap: str) -> None:
    tensors, path = state(num_classes=1), tmp_path / "net.safetensors"
    if wrap == "card":
        checkpoints.save(path, tensors, card(num_classes=1, labels=("shoe",)))
    else:
        save_file(tensors, path)
    with pytest.raises(WeightsError, match=r"has one output.*row of zeros to classifier.weight"):
        weights.load(VARIANT, path)
    two = tensors | {
        name: torch.cat([each, torch.zeros_like(each)]) for name, each in tensors.items() if "class" in name
    }
    save_file(two, path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SimpleNetWarning)
        loaded = weights.load(VARIANT, path)
    images = torch.randn(4, 3, 32, 32)
    features = loaded.model.features(images).amax((2, 3))
    expected = torch.sigmoid(features @ tensors["classifier.weight"].T + tensors["classifier.bias"])
    torch.testing.assert_close(loaded.model(images).softmax(1)[:, :1], expected)


def test_a_checkpoint_of_imagenets_classes_has_their_labels(tmp_path: Path) -> None:
    assert weights.load("3m", write(tmp_path / "a.pt", state("3m"))).card.labels == labels.imagenet_labels()
    assert weights.load("3m", write(tmp_path / "b.pt", state("3m", 10))).card.labels == ()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types_become_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in state().items()}
    found = weights.load(VARIANT, write(tmp_path / "a.pth", tensors)).model.state_dict()
    assert {tensor.dtype for tensor in found.values()} == {torch.float32, torch.int64}
    assert torch.equal(found["features.0.weight"], tensors["features.0.weight"].float())


@pytest.mark.parametrize(
    ("variant", "name", "expected"),
    [
        ("cifar-310k", "best.pth", "best-{}"),
        ("cifar-310k", "pretrained.pth", "pretrained-{}"),
        ("cifar-310k", "Ünï/../..pth.pth", "pth-{}"),
        ("cifar-310k", "...pth", "checkpoint-{}"),
        ("cifar-310k", "x" * 100 + ".pth", "x" * 40 + "-{}"),
        ("cifar-5m", "extra-pool-2.pth", "weights-extra-pool-2-{}"),
    ],
)
def test_names_of_checkpoints_are_safe_in_folders(tmp_path: Path, variant: str, name: str, expected: str) -> None:
    (tmp_path / "Ünï").mkdir()
    path = write(tmp_path / name, state(variant))
    assert weights.load(variant, path).origin.name == expected.format(sha256(path)[:8])


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("touch /tmp/owned-by-a-checkpoint",))


def evil_pickle(path: Path) -> None:
    with path.open("wb") as file:
        pickle.dump({"a": Evil()}, file)


def test_code_is_never_run(tmp_path: Path) -> None:
    marker = Path("/tmp/owned-by-a-checkpoint")
    marker.unlink(missing_ok=True)
    write(tmp_path / "evil.pth", {"features.0.weight": Evil()})
    evil_pickle(tmp_path / "raw.pth")
    write(tmp_path / "module.pth", model.create(VARIANT))
    for name, code in (("evil.pth", "posix.system"), ("raw.pth", ""), ("module.pth", "simplenet.model.SimpleNet")):
        with pytest.raises(WeightsError, match=rf"{name} .*never run; save only the weights: torch.save") as caught:
            weights.load(VARIANT, tmp_path / name)
        assert code in str(caught.value)
        assert "\n" not in str(caught.value)
        assert "weights_only" not in str(caught.value)  # torch suggests to load it unsafely
    assert not marker.exists()


def without(tensors: Tensors, *names: str) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if name not in names}


def test_another_network_names_the_first_missing_and_unexpected(tmp_path: Path) -> None:
    good = state()
    cases = [
        (without(good, "features.4.bias", "features.8.bias"), r"missing 'features.4.bias'; name another"),
        ({**good, "extra.weight": good["features.0.bias"]}, r"unexpected 'extra.weight'; name another"),
        ({"conv1.weight": torch.zeros(3)}, r"missing 'features.0.weight', unexpected 'conv1.weight'"),
        ({**good, "features.4.bias": torch.zeros(3)}, r"features.4.bias is \[3\], not \[32\]"),
        (state("cifar-460k"), r"it fits cifar-460k: type --variant cifar-460k"),
        (state("3m", 10), r"it fits 3m, 3m-m1: type --variant 3m"),
    ]
    for tensors, message in cases:
        with pytest.raises(WeightsError, match=rf"a.pth does not fit cifar-310k: .*{message}"):
            weights.load(VARIANT, write(tmp_path / "a.pth", tensors))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("features.4.weight", float("nan"), "features.4.weight has NaN or infinite values"),
        ("classifier.bias", float("-inf"), "classifier.bias has NaN or infinite values"),
        ("features.1.running_var", -1.0, "features.1.running_var has negative variances"),
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_rejects_nan_infinite_and_negative_variance(
    tmp_path: Path, name: str, value: float, message: str, suffix: str
) -> None:
    tensors = state()
    tensors[name].flatten()[0] = value
    path = tmp_path / f"a{suffix}"
    if suffix == ".pth":
        write(path, tensors)
    else:
        save_file(tensors, path)
    with pytest.raises(WeightsError, match=message):
        weights.load(VARIANT, path)


@pytest.mark.parametrize("zeros", [4096, 65536, 262144])
def test_rejects_a_file_whose_end_is_zeros(tmp_path: Path, zeros: int) -> None:
    """As after a power loss, or an interrupted download into a file of the full size."""
    save_file(state(), tmp_path / "a.safetensors")
    content = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "a.safetensors").write_bytes(content[:-zeros] + bytes(zeros))
    with pytest.raises(WeightsError, match=r"is damaged: .* is all zeros; copy or download it again"):
        weights.load(VARIANT, tmp_path / "a.safetensors")


@pytest.mark.parametrize("name", ["features.0.weight", "features.1.running_var", "classifier.weight"])
def test_rejects_a_tensor_of_zeros(tmp_path: Path, name: str) -> None:
    tensors = state()
    tensors[name].zero_()
    with pytest.raises(WeightsError, match=f"{name} is all zeros"):
        weights.load(VARIANT, write(tmp_path / "a.pth", tensors))


@pytest.mark.parametrize(
    ("replacement", "message"),
    [
        (torch.zeros(64, 3, 3, 3, dtype=torch.int32), "features.0.weight is torch.int32, not torch.float32"),
        (torch.zeros(64, 3, 3, 3, dtype=torch.complex64), "torch.complex64"),
        (torch.zeros(64, 3, 3, 3).to_sparse(), "not a plain tensor"),
        (torch.empty(64, 3, 3, 3, device="meta"), "not a plain tensor"),
        (torch.full((64, 3, 3, 3), 1e300, dtype=torch.float64), "NaN or infinite"),
        (torch.zeros(64, 1, 3, 3), "images of 1 channels, only RGB is supported"),
        (torch.zeros(1).expand(1000, 1000, 1000), r"features.0.weight is \[1000, 1000, 1000\]"),
        (7, "'features.0.weight' is a int"),
    ],
    ids=["integers", "complex", "sparse", "meta", "too large", "gray", "expanded", "number"],
)
def test_rejects_other_kinds_of_tensors(tmp_path: Path, replacement: Any, message: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = write(tmp_path / "a.pth", {**state(), "features.0.weight": replacement})
    with pytest.raises(WeightsError, match=message):
        weights.load(VARIANT, path)


def test_rejects_quantized_tensors(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantized = torch.quantize_per_tensor(state()["features.0.weight"], 0.1, 0, torch.qint8)
        path = write(tmp_path / "a.pth", {**state(), "features.0.weight": quantized})
    with pytest.raises(WeightsError, match="not a plain tensor"):
        weights.load(VARIANT, path)


def test_rejects_nested_tensors(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nested = torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)])
        path = write(tmp_path / "a.pth", {**state(), "classifier.bias": nested})
    with pytest.raises(WeightsError, match=r"'classifier\.bias' is a .*nested_tensor, not a plain tensor"):
        weights.load(VARIANT, path)


def test_rejects_too_many_classes_before_allocating(tmp_path: Path) -> None:
    huge = {**state(), "classifier.weight": torch.zeros(1, 1).expand(10**9, 64)}
    with pytest.raises(WeightsError, match="has 1000000000 classes, not 1 to"):
        weights.load(VARIANT, write(tmp_path / "a.pth", huge))


def test_rejects_a_zip_bomb(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(1 << 20))
        archive.infolist()[0].file_size = 2 << 30  # torch allocates what the directory says
    with pytest.raises(WeightsError, match="unpacks to over 1 GiB"):
        weights.load(VARIANT, tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "a.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(65 << 20))
    with pytest.raises(WeightsError, match=r"its data\.pkl is too large"):
        weights.load(VARIANT, tmp_path / "a.pth")


def test_rejects_files_that_are_no_checkpoints(tmp_path: Path) -> None:
    good, ours = write(tmp_path / "good.pth", state()), tmp_path / "ours.safetensors"
    checkpoints.save(ours, state(), card())
    contents = {
        "empty.pth": b"",
        "empty.safetensors": b"",
        "text.pth": b"hello world" * 100,
        "text.safetensors": b"hello world" * 100,
        "half.pth": good.read_bytes()[: good.stat().st_size // 2],
        "half.safetensors": ours.read_bytes()[: ours.stat().st_size // 2],
        "head.safetensors": ours.read_bytes()[:20],
        "page.pt": b"<html><body>Not found</body></html>",
        "huge-header.safetensors": b"\xff" * 8 + b"{}",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    write(tmp_path / "list.pth", [1, 2])
    write(tmp_path / "none.pth", {})
    write(tmp_path / "keys.pth", {1: torch.zeros(1)})
    (tmp_path / "folder.pth").mkdir()
    (tmp_path / "net.onnx").write_bytes(b"onnx")
    for name in (*contents, "list.pth", "none.pth", "keys.pth", "folder.pth", "missing.pth", "missing/net", "net.onnx"):
        with pytest.raises(WeightsError, match=name) as caught:
            weights.load(VARIANT, tmp_path / name)
        assert "\n" not in str(caught.value), name
        assert len(str(caught.value)) < 600, name
    with pytest.raises(WeightsError, match="no file at"):
        weights.load(VARIANT, "missing.safetensors")


def test_rejects_torchscript(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "script.pt")
    with pytest.raises(WeightsError, match=r"script.pt .*never run"):
        weights.load(VARIANT, tmp_path / "script.pt")


def test_rejects_cards_of_other_weights(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    cases = [
        (card("cifar-460k"), "holds weights of cifar-460k, not of cifar-310k; type --variant cifar-460k"),
        (card("resnet"), "holds weights of an unknown variant 'resnet'"),
        (card(num_classes=11), "its card says 11 classes, its weights 10"),
        (
            dataclasses.replace(card(), preprocessing=Preprocessing(15, 15, (0.5,) * 3, (0.2,) * 3)),
            "was trained on images that are too small: cifar-310k needs images of 16 pixels or more, not 15",
        ),
    ]
    for wrong, message in cases:
        checkpoints.save(path, state(), wrong)
        with pytest.raises(WeightsError, match=rf"a.safetensors:? {message}"):
            weights.load(VARIANT, path)
    checkpoints.save(path, state(), card("simplenet_cifar_310k"))  # an alias
    assert weights.load(VARIANT, path).card.num_classes == 10
    save_file(state(), path, metadata={"simplenet": '{"schema_version": 9}'})
    with pytest.raises(WeightsError, match=r"a.safetensors: .*schema version 9"):
        weights.load(VARIANT, path)


def test_rejects_official_weights_of_another_stride_mode(tmp_path: Path) -> None:
    """m1 and m2 have the same shapes, so only the name differs; wrong strides would halve the accuracy."""
    path = write(tmp_path / "simplenetv1_small_m1_05-be804903.pth", state("1.5m"))
    with pytest.raises(WeightsError, match=r"holds weights of 1\.5m-m1, not of 1\.5m; type --variant 1.5m-m1"):
        weights.load("1.5m", path)
    assert weights.load("1.5m-m1", path).origin.source == "checkpoint"


@pytest.mark.skipif(sys.platform == "win32", reason="no resource limits")
def test_saving_is_atomic(tmp_path: Path) -> None:
    """A limit on file sizes stands for the full disk."""
    import resource

    path = tmp_path / "a.safetensors"
    checkpoints.save(path, state(), card())
    before, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(SimpleNetError, match=f"cannot write {path}: File too large; the old file is unchanged"):
            checkpoints.save(path, state(seed=4), card())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.safetensors"]
    with pytest.raises(SimpleNetError, match="cannot write"):
        checkpoints.save(path / "b.safetensors", state(), card())


def test_a_saved_checkpoint_is_plain_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    checkpoints.save(path, state(), card())
    assert load_file(path).keys() == state().keys()
    header = json.loads(path.read_bytes()[8 : 8 + int.from_bytes(path.read_bytes()[:8], "little")])
    assert json.loads(header["__metadata__"]["simplenet"])["variant"] == VARIANT
